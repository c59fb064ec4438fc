-- Dispatches a step again whose entry is gone although its record says that it is in flight; checked here once more.
-- `line` is the line that it waits in, or else `due` again, and `place` its name there.
-- Replies: 1 repaired | 0 nothing to repair.
local function repair(keys, args)
  local run, audit, records, stream, due, deferred, line = unpack(keys)
  local id, workflow, step, item, slot, name, seen, member, who, place = unpack(args)
  local found = redis.call('HMGET', run, 'st', 'q')
  local text = redis.call('HGET', records, slot)
  local was = parse_record(text)
  if not found[1] or RUN_ENDED[found[1]] or text ~= seen or not was or STEP_ENDED[was.state] then return 0 end
  if was.state == 'waiting' then return 0 end
  if was.entry ~= '-' and #redis.call('XRANGE', stream, was.entry, was.entry) == 1 then return 0 end
  if redis.call('ZSCORE', due, member) or redis.call('ZSCORE', line, place) then return 0 end
  local now, change = now_ms(), nil
  change = open_change(run, audit, now, found[2])
  local part = id .. ' ' .. workflow .. ' ' .. step
  if item ~= '' then part = part .. ' ' .. item end
  local fields = { 'run', part, 'attempt', was.attempt }
  if was.state == 'running' then fields[#fields + 1], fields[#fields + 2] = 'gather', '1' end
  local entry = redis.call('XADD', stream, '*', unpack(fields))
  -- the fields that waited with it have no place any more
  redis.call('HDEL', deferred, member)
  if was.state ~= 'ready' and was.state ~= 'running' then note(change, name, was.state, 'ready', now, was.attempt, who) end
  local state = was.state == 'running' and 'running' or 'ready'
  local now_text = record(state, was.attempt, now, was.started, '-', was.who, entry, was.queue)
  if records == run then put(change, slot, now_text) else redis.call('HSET', records, slot, now_text) end
  write_change(change)
  return 1
end
