-- A step waits: what it remembers is written, the letters that it has read are gone, what it asks for goes to the stream of requested
-- runs, its alarm is set and it listens. Where letters are left, or a signal came early, it is ready again at once.
-- Replies: 1 waits | 2 ready again | 0 stale | -1 conflict | -2 the run has ended or is ending (nothing was done, the entry is still the
-- caller's) | -3 run gone.
-- Args after the fixed ones: read letters, a letter to itself (key, text), signal names, events to publish, and requests, each list with its length first; of a
-- request its fields, again with their number first.
local function list(args, at)
  local n = tonumber(args[at])
  local out = {}
  for i = 1, n do out[i] = args[at + i] end
  return out, at + 1 + n
end

local function set_alarm(due, deferred, member, at_ms, generation)
  if at_ms == '' then
    redis.call('ZREM', due, member)
    redis.call('HDEL', deferred, member)
  else
    redis.call('ZADD', due, at_ms, member)
    redis.call('HSET', deferred, member, generation)
  end
end

local function wait(keys, args)
  local stream, run, audit, mail, due, deferred, target, requests, events, ears = unpack(keys)
  local group, who, entry, id, workflow, step, name, attempt, ran_ms, memo, member, alarm_ms, generation, why = unpack(args, 1, 14)
  local found, now = redis.call('HMGET', run, 'st', 'q', 'a', 'to', 's' .. step), now_ms()
  local state, was = found[1], parse_record(found[5])
  if state and (RUN_ENDED[state] or found[4]) then return -2 end
  if not take(stream, group, entry) then return 0 end
  redis.call('XDEL', stream, entry)
  if not state then return -3 end
  if not was or was.entry ~= entry or was.state ~= 'ready' then return -1 end
  local change = open_change(run, audit, now, found[2])
  change.flight = tonumber(found[3]) or 0
  local started = minus(now, ran_ms)
  note(change, name, 'ready', 'running', started, attempt, who)
  note(change, name, 'running', 'waiting', now, attempt, who)
  was.attempt = attempt
  put(change, 'w' .. step, memo)
  put(change, 'y' .. step, why)
  local read, at = list(args, 15)
  local own, signals, published
  own, at = list(args, at)
  signals, at = list(args, at)
  published, at = list(args, at)
  local more = clear_box(mail, step, read)
  if own[1] then more = post(mail, step, own[1], own[2]) or more end
  listen_no_more(mail, step, signals)
  for _, signal in ipairs(signals) do
    more = listen(mail, step, signal) or more
    if string.sub(signal, 1, 6) == 'event:' then redis.call('SADD', ears, signal .. ' ' .. id .. ' ' .. step) end
  end
  for _, event in ipairs(published) do
    redis.call('XADD', events, 'MAXLEN', '~', '100000', '*', 'event', event, 'run', id)
  end
  for _ = 1, tonumber(args[at]) do
    local fields
    fields, at = list(args, at + 1)
    at = at - 1
    redis.call('XADD', requests, '*', unpack(fields))
  end
  set_alarm(due, deferred, member, alarm_ms, generation)
  put(change, 's' .. step, record('waiting', attempt, was.ready, started, '-', who, '-', base(was.queue)))
  -- its tool has answered: what it does next has all its attempts before it
  if own[1] then was.attempt = '1' end
  change.flight = change.flight - 1
  if more then
    -- it does not wait, so neither does the run
    wake(change, 'running', target, { id = id, workflow = workflow, step = step, name = name }, was)
  else
    keep_flow(change, state)
  end
  write_change(change)
  return more and 2 or 1
end
