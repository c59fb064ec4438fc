-- Records the outcomes of steps that the caller owns, counts them at their dependents, dispatches those that fire and ends
-- the run (or asks for its output) after the last. A step of index '' only carries on a wide fan-out.
-- Replies per step: 1 recorded | 2 recorded and the run ended | 0 stale | -1 conflict (not in flight by this entry) |
-- -3 run gone | -4 a key has another type (nothing settled).
-- Mode letters: k a success | f makes the run fail at its end | x fails the run now | s its output is the run's | d did not run.
-- Keys after the fixed ones: one stream per target queue, then (run, audit, result, reply) per step.
-- Args after the fixed ones: one queue name per target, then per step the 17 of `read_outcome`, then per dependent
-- (step, name, ended, ok, target): it fires when its counters reach `ended` ends or `ok` successes.
local function read_outcome(args, at)
  local o = {}
  o.entry, o.id, o.workflow, o.step, o.name, o.to, o.attempt, o.ran_ms, o.output, o.error = unpack(args, at, at + 9)
  o.code, o.reason, o.steps, o.mode, o.retention_ms, o.more, o.dependents = unpack(args, at + 10, at + 16)
  o.dependents, o.first = tonumber(o.dependents), at + 17
  return o
end

-- Counts this end at one dependent and dispatches it when it fires.
local function count_end(change, o, keys, args, at, found, index, alive)
  local step, name, ended, ok, target = unpack(args, at, at + 4)
  target = tonumber(target)
  local seen_ended, seen_ok = (tonumber(found[index]) or 0) + 1, tonumber(found[index + 1]) or 0
  local ok_now = seen_ok
  if string.find(o.mode, 'k', 1, true) then ok_now = seen_ok + 1 end
  local wanted = tonumber(ok)
  local before = (wanted > 0 and seen_ok >= wanted) or (ended ~= '0' and seen_ended - 1 >= tonumber(ended))
  local fires = seen_ended == tonumber(ended) or (wanted > 0 and ok_now == wanted and ok_now > seen_ok) or ended == '0'
  if ended ~= '0' then
    put(change, 'c' .. step, seen_ended)
    if ok_now ~= seen_ok then put(change, 'k' .. step, ok_now) end
  end
  if alive and fires and not before then
    dispatch(change, o.id, o.workflow, step, name, keys[5 + target], args[4 + target])
  end
end

local function settle_one(o, fixed, keys, args, key)
  local now, who = fixed.now, fixed.who
  local run, audit = keys[key], keys[key + 1]
  local names = { 'st', 'q', 'd', 'f', 's' .. o.step, 'in', 'rt', 'rp', 'err' }
  for d = 0, o.dependents - 1 do
    local step = args[o.first + d * 5]
    names[#names + 1], names[#names + 2] = 'c' .. step, 'k' .. step
  end
  local found = redis.call('HMGET', run, unpack(names))
  local state, was = found[1], parse_record(found[5])
  local carries_on, ran = o.step == '', not string.find(o.mode, 'd', 1, true)
  local refused
  if not state then refused = -3
  elseif not carries_on and not (was and was.entry == o.entry and STEP_ENDED[o.to] and STEP_MOVES[(ran and 'running ' or 'ready ') .. o.to]) then
    refused = -1
  end
  if not take(fixed.stream, fixed.group, o.entry) then return 0 end
  if refused then return refused end

  local change = open_change(run, audit, now, found[2])
  local alive = not RUN_ENDED[state]
  local done, failed = tonumber(found[3]) or 0, tonumber(found[4]) or 0
  if not carries_on then
    local started = was.started
    if ran and was.state == 'ready' then
      started = minus(now, o.ran_ms)
      note(change, o.name, 'ready', 'running', started, o.attempt, who)
    end
    note(change, o.name, ran and 'running' or 'ready', o.to, now, o.attempt, who)
    put(change, 's' .. o.step, record(o.to, o.attempt, was.ready, started, now, who, '-', was.queue))
    if o.output ~= '' then put(change, 'o' .. o.step, o.output) end
    if o.error ~= '' then put(change, 'e' .. o.step, o.error) end
    done = done + 1
    put(change, 'd', done)
    if string.find(o.mode, 'f', 1, true) then
      failed = failed + 1
      put(change, 'f', failed)
      put(change, 'err', o.error)
    end
  end
  local ends = alive and string.find(o.mode, 'x', 1, true) ~= nil
  for d = 0, o.dependents - 1 do
    count_end(change, o, keys, args, o.first + d * 5, found, 10 + d * 2, alive and not ends)
  end
  if alive and not ends and o.more ~= '' then
    redis.call('XADD', keys[6], '*', 'run', o.id, 'wf', o.workflow, 'fan', o.step == '' and o.name or o.step, 'from', o.more, 'mode', o.mode)
  end
  local last = alive and not ends and done == tonumber(o.steps) and o.more == '' and not carries_on
  local ending = { id = o.id, workflow = o.workflow, from = state, who = who, output = '', error = '', code = o.code,
    reason = o.reason, dead_cap = fixed.dead_cap, input = found[6] or '', ttl_ms = found[7] or '0', replies = found[8] and '1' or '0' }
  local places = { live = fixed.live, ended = fixed.ended, cancelled = fixed.cancelled, dead = fixed.dead,
    result = keys[key + 2], reply = keys[key + 3] }
  if ends or (last and failed > 0) then
    ending.to, ending.error = 'failed', o.error ~= '' and o.error or found[9] or ''
    if o.error == '' then ending.code, ending.reason = 'step_failed', 'a step failed: see the run' end
    end_run(change, places, ending)
    ends = true
  elseif last and string.find(o.mode, 's', 1, true) then
    ending.to, ending.output = 'succeeded', o.output
    put(change, 'ref', o.step)
    end_run(change, places, ending)
    ends = true
  elseif last then
    redis.call('XADD', keys[6], '*', 'run', o.id, 'wf', o.workflow, 'finish', '1')
  end
  write_change(change)
  if ends then expire_run(change, o.retention_ms) end
  return ends and 2 or 1
end

local function settle_step(keys, args)
  local stream, live, ended, cancelled, dead = unpack(keys, 1, 5)
  local group, who, dead_cap, targets = unpack(args, 1, 4)
  targets = tonumber(targets)
  local fixed = { stream = stream, live = live, ended = ended, cancelled = cancelled, dead = dead, group = group, who = who,
    dead_cap = dead_cap, now = now_ms() }
  local replies, gone = {}, { 'XDEL', stream }
  local key, arg = 5 + targets + 1, 5 + targets + 1
  for i = 1, tonumber(args[5 + targets]) do
    local o = read_outcome(args, arg)
    local fine, reply = pcall(settle_one, o, fixed, keys, args, key)
    replies[i] = fine and reply or -4
    if replies[i] ~= 0 and replies[i] ~= -4 then gone[#gone + 1] = o.entry end
    key, arg = key + 4, o.first + o.dependents * 5
  end
  if #gone > 2 then redis.call(unpack(gone)) end
  return replies
end
