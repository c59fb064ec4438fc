-- Records the outcomes of `for_each` items that the caller owns, dispatches the next item for each, and after the last asks for
-- the step's output to be gathered. Items of one step that stand next to each other are recorded together: one look at the run and
-- at the items, one write to each, one audit entry.
-- Replies per item: 1 recorded | 0 stale | -1 conflict | -3 run gone | -4 a key has another type (the entry is dropped).
-- Keys after the fixed one: (run, audit, items, target) per item. Args after the fixed ones: the 13 of `read_item` per item.
local function read_item(args, at)
  local o = {}
  o.entry, o.id, o.workflow, o.step, o.item, o.name, o.to, o.attempt, o.ran_ms, o.output = unpack(args, at, at + 9)
  o.error, o.mode, o.tolerate = unpack(args, at + 10, at + 12)
  return o
end

-- How many of `total` may fail: a number, or a share as `5%`.
local function tolerated(text, total)
  local percent = string.match(text, '^(.+)%%$')
  return percent and math.floor(total * tonumber(percent) / 100) or tonumber(text)
end

-- Records that an item has ended; false when it is not in flight by this entry.
local function end_item(change, o, was, who, set)
  local ran, now = not string.find(o.mode, 'd', 1, true), change.now
  if not was or was.entry ~= o.entry or not STEP_ENDED[o.to] or not STEP_MOVES[(ran and 'running ' or 'ready ') .. o.to] then
    return false
  end
  local subject, started = o.name .. '[' .. o.item .. ']', ran and minus(now, o.ran_ms) or '-'
  if ran then note(change, subject, 'ready', 'running', started, o.attempt, who) end
  note(change, subject, ran and 'running' or 'ready', o.to, now, o.attempt, who)
  local n = set.n
  set[n + 1], set[n + 2] = 's' .. o.item, record(o.to, o.attempt, was.ready, started, now, who, '-', base(was.queue))
  set[n + 3], set[n + 4], set[n + 5], set[n + 6] = 'o' .. o.item, o.output, 'e' .. o.item, o.error
  set.n = n + 6
  return true
end

-- Dispatches the next item, or the gathering after the last.
local function go_on(change, o, target, each, set)
  if not each.stopped and each.used < each.total then
    local next_item, n = whole(each.used), set.n
    local own = redis.call('XADD', target, '*', 'run', o.id .. ' ' .. o.workflow .. ' ' .. o.step .. ' ' .. next_item)
    set[n + 1], set[n + 2] = 's' .. next_item, record('ready', '1', change.now, '-', '-', '-', own, each.queue)
    set.n = n + 2
    note(change, o.name .. '[' .. next_item .. ']', 'pending', 'ready', change.now, '1', '-')
    each.used = each.used + 1
  elseif each.gone == each.used then
    local was = each.was
    local own = redis.call('XADD', target, '*', 'run', o.id .. ' ' .. o.workflow .. ' ' .. o.step, 'gather', '1',
      'attempt', was.attempt)
    put(change, 's' .. o.step, record('running', was.attempt, was.ready, was.started, '-', was.who, own, each.queue))
  end
end

-- The outcomes `first` to `last`, all of one step.
local function settle_items_of(outcomes, first, last, keys, fixed, replies)
  local s, at = outcomes[first].step, 2 + (first - 1) * 4
  local run, audit, items, target = unpack(keys, at, at + 3)
  local found = redis.call('HMGET', run, 'st', 'q', 'n' .. s, 'u' .. s, 'g' .. s, 'h' .. s, 's' .. s, 'to')
  if not found[1] or not found[3] then
    for i = first, last do replies[i] = outcomes[i].owned and -3 or 0 end
    return
  end
  local names = {}
  for i = first, last do names[i - first + 1] = 's' .. outcomes[i].item end
  local records = redis.call('HMGET', items, unpack(names))
  local change, set, was = open_change(run, audit, fixed.now, found[2]), { n = 0 }, parse_record(found[7])
  local each = { total = tonumber(found[3]), used = tonumber(found[4]), gone = tonumber(found[5]), was = was, queue = base(was.queue) }
  local failed, seen = tonumber(found[6]), {}
  for i = first, last do
    local o = outcomes[i]
    if not o.owned then
      replies[i] = 0
    elseif seen[o.item] or not end_item(change, o, parse_record(records[i - first + 1]), fixed.who, set) then
      replies[i] = -1
    else
      seen[o.item] = true
      each.gone = each.gone + 1
      if string.find(o.mode, 'f', 1, true) then failed = failed + 1 end
      each.stopped = failed > tolerated(o.tolerate, each.total) or RUN_ENDED[found[1]] or found[8]
      go_on(change, o, target, each, set)
      replies[i] = 1
    end
  end
  if set.n > 0 then
    put(change, 'u' .. s, whole(each.used))
    put(change, 'g' .. s, whole(each.gone))
    put(change, 'h' .. s, whole(failed))
    redis.call('HSET', items, unpack(set, 1, set.n))
  end
  write_change(change)
end

local function settle_item(keys, args)
  local stream = keys[1]
  local group, who, count = unpack(args, 1, 3)
  local fixed, replies, outcomes = { who = who, now = now_ms() }, {}, {}
  local ack, gone, n = { 'XACK', stream, group }, { 'XDEL', stream }, 2
  for i = 1, tonumber(count) do
    outcomes[i] = read_item(args, 4 + (i - 1) * 13)
    ack[3 + i] = outcomes[i].entry
  end
  -- as in settle_step: one XACK tells whether the caller owns all, which is nearly always so
  local owns_all = #outcomes > 0 and redis.call(unpack(ack)) == #outcomes
  for _, o in ipairs(outcomes) do
    o.owned = owns_all or fields_of(stream, o.entry) ~= nil
    if o.owned then
      n = n + 1
      gone[n] = o.entry
    end
  end
  local first = 1
  while first <= #outcomes do
    local last, run, step = first, keys[2 + (first - 1) * 4], outcomes[first].step
    while last < #outcomes and keys[2 + last * 4] == run and outcomes[last + 1].step == step do last = last + 1 end
    -- a key of another type: the entries must not come back for ever, and the others of the call are not its fault
    if not pcall(settle_items_of, outcomes, first, last, keys, fixed, replies) then
      for i = first, last do replies[i] = outcomes[i].owned and -4 or 0 end
    end
    first = last + 1
  end
  if n > 2 then redis.call(unpack(gone)) end
  return replies
end
