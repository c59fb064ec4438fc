-- Records the outcomes of `for_each` items that the caller owns, dispatches the next item for each, and after the last asks for
-- the step's output to be gathered.
-- Replies per item: 1 recorded | 0 stale | -1 conflict | -3 run gone | -4 a key has another type (the entry is dropped).
-- Keys after the fixed one: (run, audit, items, target) per item. Args after the fixed ones: the 13 of `read_item` per item.
local function read_item(args, at)
  local o = {}
  o.entry, o.id, o.workflow, o.step, o.item, o.name, o.to, o.attempt, o.ran_ms, o.output = unpack(args, at, at + 9)
  o.error, o.mode, o.tolerate = unpack(args, at + 10, at + 12)
  return o
end

-- Dispatches the next item, or the gathering after the last.
local function go_on(change, o, items, target, found)
  local total, used, gone, failed = tonumber(found[3]), tonumber(found[4]), tonumber(found[5]) + 1, tonumber(found[6])
  if string.find(o.mode, 'f', 1, true) then
    failed = failed + 1
    put(change, 'h' .. o.step, failed)
  end
  put(change, 'g' .. o.step, gone)
  local was, stopped = parse_record(found[7]), failed > tonumber(o.tolerate) or RUN_ENDED[found[1]]
  if not stopped and used < total then
    local own = redis.call('XADD', target, '*', 'run', o.id .. ' ' .. o.workflow .. ' ' .. o.step .. ' ' .. used)
    redis.call('HSET', items, 's' .. used, record('ready', '1', change.now, '-', '-', '-', own, base(was.queue)))
    note(change, o.name .. '[' .. used .. ']', 'pending', 'ready', change.now, '1', '-')
    put(change, 'u' .. o.step, used + 1)
  elseif gone == used then
    local own = redis.call('XADD', target, '*', 'run', o.id .. ' ' .. o.workflow .. ' ' .. o.step, 'gather', '1',
      'attempt', was.attempt)
    put(change, 's' .. o.step, record('running', was.attempt, was.ready, was.started, '-', was.who, own, base(was.queue)))
  end
end

local function settle_one_item(o, keys, at, fixed)
  local run, audit, items, target = unpack(keys, at, at + 3)
  local s, now, who = o.step, fixed.now, fixed.who
  local found = redis.call('HMGET', run, 'st', 'q', 'n' .. s, 'u' .. s, 'g' .. s, 'h' .. s, 's' .. s)
  local was = parse_record(redis.call('HGET', items, 's' .. o.item))
  if not take(fixed.stream, fixed.group, o.entry) then return 0 end
  redis.call('XDEL', fixed.stream, o.entry)
  local ran = not string.find(o.mode, 'd', 1, true)
  if not found[1] or not found[3] then return -3 end
  if not was or was.entry ~= o.entry or not STEP_ENDED[o.to] or not STEP_MOVES[(ran and 'running ' or 'ready ') .. o.to] then
    return -1
  end
  local change, subject = open_change(run, audit, now, found[2]), o.name .. '[' .. o.item .. ']'
  local started = ran and minus(now, o.ran_ms) or '-'
  if ran then note(change, subject, 'ready', 'running', started, o.attempt, who) end
  note(change, subject, ran and 'running' or 'ready', o.to, now, o.attempt, who)
  redis.call('HSET', items, 's' .. o.item, record(o.to, o.attempt, was.ready, started, now, who, '-', base(was.queue)),
    'o' .. o.item, o.output, 'e' .. o.item, o.error)
  go_on(change, o, items, target, found)
  write_change(change)
  return 1
end

local function settle_item(keys, args)
  local stream = keys[1]
  local group, who, count = unpack(args, 1, 3)
  local fixed, replies = { stream = stream, group = group, who = who, now = now_ms() }, {}
  for i = 1, tonumber(count) do
    local o = read_item(args, 4 + (i - 1) * 13)
    local fine, reply = pcall(settle_one_item, o, keys, 2 + (i - 1) * 4, fixed)
    -- a key of another type: the entry must not come back for ever, and the others of the call are not its fault
    if not fine and take(stream, group, o.entry) then redis.call('XDEL', stream, o.entry) end
    replies[i] = fine and reply or -4
  end
  return replies
end
