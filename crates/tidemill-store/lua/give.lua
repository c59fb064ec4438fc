-- Gives a step an output by hand, in place of what it would have done: one that is ready and that nobody has claimed, is put aside, or
-- waits. What follows is what follows its success (see settle_step, whose arguments these are, with one outcome).
-- Replies: 1 recorded | 2 recorded and the run ended | -1 the step has ended | -2 somebody runs it | -3 run gone | -5 nothing of it has
-- become ready yet | -6 the run has ended or is ending.
-- Keys after the fixed ones: as those of settle_step. Args after the fixed ones: as those of settle_step behind `targets`.

-- Takes it off from where it stands; false when somebody has claimed it.
local function lift(was, streams, aside, group, member, queue)
  if was.state == 'ready' then
    for _, stream in ipairs(streams) do
      local held = redis.pcall('XPENDING', stream, group, was.entry, was.entry, '1')
      if not held.err and #held > 0 then return false end
    end
    for _, stream in ipairs(streams) do redis.call('XDEL', stream, was.entry) end
    return true
  end
  if was.state == 'running' then return false end
  local due, deferred, line, alarms, generations = unpack(aside)
  redis.call('ZREM', due, member)
  redis.call('HDEL', deferred, member)
  redis.call('ZREM', line, queue .. '|' .. member)
  redis.call('ZREM', alarms, member)
  redis.call('HDEL', generations, member)
  return true
end

local function without(list, from, to)
  local kept, n = {}, 0
  for at, value in ipairs(list) do
    if at < from or at > to then
      n = n + 1
      kept[n] = value
    end
  end
  return kept
end

local function give(keys, args)
  local stream, live, ended, cancelled, dead, runs, first, due, deferred, line, alarms, generations, operations = unpack(keys, 1, 13)
  local group, who, dead_cap, targets, member, queue, by, why = unpack(args, 1, 8)
  local own_keys, own_args = without(keys, 7, 13), without(args, 5, 8)
  local of, key, now = 6 + targets, 7 + targets, now_ms()
  local run, step = own_keys[key], own_args[of + STEP]
  local found = redis.call('HMGET', run, 'st', 'to', 's' .. step, 'q')
  local state, was = found[1], parse_record(found[3])
  if not state then return -3 end
  if RUN_ENDED[state] or found[2] then return -6 end
  if not was then return -5 end
  if STEP_ENDED[was.state] then return -1 end
  if not lift(was, { stream, first }, { due, deferred, line, alarms, generations }, group, member, queue) then return -2 end
  if state == 'waiting' then
    -- it goes on, if only to its end
    local change = open_change(run, own_keys[key + 1], now, found[4])
    put(change, 'st', 'running')
    note(change, '@', 'waiting', 'running', now, '0', who)
    write_change(change)
  end
  own_args[of + ENTRY], own_args[of + ATTEMPT] = was.entry, was.attempt
  local fixed = { stream = stream, live = live, ended = ended, cancelled = cancelled, dead = dead, runs = runs, group = group, who = who,
    dead_cap = dead_cap, now = now, keys = own_keys, args = own_args }
  local reply = settle_one(of, mode_of(own_args[of + MODE]), fixed, key)
  redis.call('XADD', operations, 'MAXLEN', '~', '100000', '*', 'kind', 'skip', 'subject', own_args[of + ID], 'step', own_args[of + NAME],
    'by', by, 'why', why)
  return reply
end
