-- What putting work aside takes, whether until a time or into a line.

-- Takes an entry off its stream and replies its fields; nil when the caller does not own it (any more).
local function take_off(stream, group, entry)
  local fields = fields_of(stream, entry)
  if not fields or #fields > MAX_FIELDS or not take(stream, group, entry) then return nil end
  redis.call('XDEL', stream, entry)
  return fields
end

-- The record of a step or item follows: it is `o.state` until `due` ('-' in a line).
-- Replies: 1 | -1 conflict (it is not in flight by this entry) | -3 run gone.
local function defer_step(o, run, audit, records, who, now, due)
  local found = redis.call('HMGET', run, 'st', 'q')
  local was = parse_record(redis.call('HGET', records, o.slot))
  if not found[1] then return -3 end
  if not was or was.entry ~= o.entry or (o.state ~= 'parked' and o.state ~= 'retrying') then return -1 end
  local change = open_change(run, audit, now, found[2])
  local from, started = 'ready', '-'
  if o.state == 'retrying' then
    from, started = 'running', minus(now, o.ran_ms)
    note(change, o.name, 'ready', 'running', started, o.attempt, who)
  end
  note(change, o.name, from, o.state, now, o.attempt, who)
  local text = record(o.state, o.attempt, was.ready, started, due, who, '-', base(was.queue))
  if records == run then put(change, o.slot, text) else redis.call('HSET', records, o.slot, text) end
  write_change(change)
  return 1
end
