-- Records the outcomes of steps that the caller owns, counts them at their dependents, dispatches those that fire and ends
-- the run (or asks for its output) after the last. A step of index '' only carries on a wide fan-out.
-- Replies per step: 1 recorded | 2 recorded and the run ended | 0 stale | -1 conflict (not in flight by this entry) |
-- -3 run gone | -4 a key has another type (the entry went to the dead letters).
-- Mode letters: k a success | f makes the run fail at its end | x fails the run now | s its output is the run's | d did not run |
-- and what follows: o an output | e an error | m where the fan-out goes on | r the run has a result to publish.
-- Keys after the fixed ones: one stream per target queue, then per step (run, audit) and with r (result, reply).
-- Args after the fixed ones: one queue name per target, then per step the twelve of `read_outcome`, with o (output), with e (error,
-- code, reason), with m (more), and per dependent (step, name, ended, ok, target): it fires when its counters reach `ended` ends
-- or `ok` successes.

-- The letters of a mode as a set; there are few, and each is taken apart once.
local MODES = {}

local function mode_of(letters)
  local mode = MODES[letters]
  if not mode then
    mode = {}
    for letter in string.gmatch(letters, '%a') do mode[letter] = true end
    MODES[letters] = mode
  end
  return mode
end

-- One outcome; `next_arg` is where its dependents begin, five arguments each.
local function read_outcome(args, at)
  local letters = args[at + 9]
  local mode = mode_of(letters)
  local o = {
    entry = args[at], id = args[at + 1], workflow = args[at + 2], step = args[at + 3], name = args[at + 4], to = args[at + 5],
    attempt = args[at + 6], ran_ms = args[at + 7], steps = args[at + 8], letters = letters, mode = mode,
    retention_ms = args[at + 10], dependents = tonumber(args[at + 11]), output = '', error = '', code = '', reason = '', more = '',
    first = 0,
  }
  at = at + 12
  if mode.o then
    o.output = args[at]
    at = at + 1
  end
  if mode.e then
    o.error, o.code, o.reason = args[at], args[at + 1], args[at + 2]
    at = at + 3
  end
  if mode.m then
    o.more = args[at]
    at = at + 1
  end
  o.first = at
  return o
end

-- Counts this end at one dependent and dispatches it when it fires.
local function count_end(change, o, fixed, at, seen_ended, seen_ok, alive)
  local args = fixed.args
  local step, ended, wanted = args[at], tonumber(args[at + 2]), tonumber(args[at + 3])
  local fires
  if ended == 0 then
    -- the first steps have no counters: the auditor may have been here before
    fires = redis.call('HEXISTS', change.run, 's' .. step) == 0
  else
    seen_ended, seen_ok = (tonumber(seen_ended) or 0) + 1, tonumber(seen_ok) or 0
    put(change, 'c' .. step, whole(seen_ended))
    fires = seen_ended == ended and not (wanted > 0 and seen_ok >= wanted)
    if wanted > 0 and o.mode.k then
      put(change, 'k' .. step, whole(seen_ok + 1))
      fires = fires or (seen_ok + 1 == wanted and seen_ended <= ended)
    end
  end
  if alive and fires then
    local target = tonumber(args[at + 4])
    dispatch(change, o.id, o.workflow, step, args[at + 1], fixed.keys[5 + target], args[4 + target])
  end
end

-- The fields of the run that this outcome needs.
local function wanted_fields(o, args)
  local names = { 'st', 'q', 'd', 'f', 's' .. o.step }
  local n = 5
  for d = 0, o.dependents - 1 do
    local at = o.first + d * 5
    names[n + 1] = 'c' .. args[at]
    names[n + 2] = 'k' .. args[at]
    n = n + 2
  end
  return names
end

-- Records the end itself; replies how many steps have ended and how many failed.
local function record_end(change, o, was, who, done, failed)
  local mode, now = o.mode, change.now
  local started, from = was.started, 'running'
  if mode.d then
    from = 'ready'
  elseif was.state == 'ready' then
    started = o.ran_ms == '0' and now or minus(now, o.ran_ms)
    note(change, o.name, 'ready', 'running', started, o.attempt, who)
  end
  note(change, o.name, from, o.to, now, o.attempt, who)
  put(change, 's' .. o.step, record(o.to, o.attempt, was.ready, started, now, who, '-', was.queue))
  if mode.o then put(change, 'o' .. o.step, o.output) end
  if mode.e then put(change, 'e' .. o.step, o.error) end
  done = (tonumber(done) or 0) + 1
  put(change, 'd', whole(done))
  failed = tonumber(failed) or 0
  if mode.f then
    failed = failed + 1
    put(change, 'f', whole(failed))
    put(change, 'err', o.error)
  end
  return done, failed
end

-- Ends the run with this outcome.
local function end_with(change, o, fixed, state, to, result, reply)
  local found = redis.call('HMGET', change.run, 'in', 'rt', 'rp', 'err')
  local ending = { id = o.id, workflow = o.workflow, from = state, to = to, who = fixed.who, output = '', error = '', code = o.code,
    reason = o.reason, dead_cap = fixed.dead_cap, input = found[1] or '', ttl_ms = result and found[2] or '0',
    replies = result and found[3] and '1' or '0' }
  if to == 'succeeded' then
    ending.output = o.output
    put(change, 'ref', o.step)
  else
    ending.error = o.error ~= '' and o.error or found[4] or ''
    if o.error == '' then ending.code, ending.reason = 'step_failed', 'a step failed: see the run' end
    if ending.error == '' then ending.error = '{"code":"step_failed","message":"a step failed: see the run"}' end
  end
  end_run(change, { live = fixed.live, ended = fixed.ended, cancelled = fixed.cancelled, dead = fixed.dead, result = result,
    reply = reply }, ending)
end

local function settle_one(o, fixed, key)
  local keys, args, mode = fixed.keys, fixed.args, o.mode
  local run = keys[key]
  local found = redis.call('HMGET', run, unpack(wanted_fields(o, args)))
  local state, was = found[1], parse_record(found[5])
  local carries_on = o.step == ''
  if not state then return -3 end
  if not carries_on and not (was and was.entry == o.entry and STEP_ENDED[o.to]
      and STEP_MOVES[(mode.d and 'ready ' or 'running ') .. o.to]) then
    return -1
  end

  local change = open_change(run, keys[key + 1], fixed.now, found[2])
  local alive, done, failed = not RUN_ENDED[state], 0, 0
  if not carries_on then done, failed = record_end(change, o, was, fixed.who, found[3], found[4]) end
  local fails = alive and mode.x
  local goes_on = alive and not fails
  for d = 0, o.dependents - 1 do
    count_end(change, o, fixed, o.first + d * 5, found[6 + d * 2], found[7 + d * 2], goes_on)
  end
  if goes_on and mode.m then
    redis.call('XADD', keys[6], '*', 'run', o.id .. ' ' .. o.workflow, 'fan', carries_on and o.name or o.step, 'from', o.more,
      'mode', o.letters)
  end
  local last = goes_on and done == tonumber(o.steps) and not mode.m and not carries_on
  local ends = false
  if fails or (last and (failed > 0 or mode.s)) then
    ends = true
    end_with(change, o, fixed, state, (fails or failed > 0) and 'failed' or 'succeeded', mode.r and keys[key + 2], mode.r and keys[key + 3])
  elseif last then
    redis.call('XADD', keys[6], '*', 'run', o.id .. ' ' .. o.workflow, 'finish', '1')
  end
  write_change(change)
  if ends then expire_run(change, o.retention_ms) end
  return ends and 2 or 1
end

-- Which entries the caller owns, acknowledging them: one XACK for all tells whether all are, which is nearly always so. Else one
-- that was not is gone from its stream, because whoever settles or moves an entry deletes it.
local function take_steps(stream, group, outcomes)
  local ack = { 'XACK', stream, group }
  for i, o in ipairs(outcomes) do ack[3 + i] = o.entry end
  if redis.call(unpack(ack)) == #outcomes then return nil end
  local owned = {}
  for i, o in ipairs(outcomes) do owned[i] = fields_of(stream, o.entry) ~= nil end
  return owned
end

-- A run whose keys hold something else: its entry must not come back for ever.
local function bury_corrupt(fixed, o)
  redis.call('XADD', fixed.dead, 'MAXLEN', '~', fixed.dead_cap, '*', 'code', 'corrupt_run', 'reason',
    'a key of the run holds something that Tidemill did not write', 'stream', fixed.stream, 'entry', o.entry, 'attempts', o.attempt,
    'at_ms', fixed.now, 'job.run', o.id .. ' ' .. o.workflow .. ' ' .. o.step)
  return -4
end

local function settle_step(keys, args)
  local stream, live, ended, cancelled, dead = unpack(keys, 1, 5)
  local group, who, dead_cap, targets = unpack(args, 1, 4)
  targets = tonumber(targets)
  local fixed = { stream = stream, live = live, ended = ended, cancelled = cancelled, dead = dead, group = group, who = who,
    dead_cap = dead_cap, now = now_ms(), keys = keys, args = args }
  local outcomes, arg = {}, 6 + targets
  for i = 1, tonumber(args[5 + targets]) do
    local o = read_outcome(args, arg)
    outcomes[i] = o
    arg = o.first + o.dependents * 5
  end
  local owned = take_steps(stream, group, outcomes)
  local replies, gone, key, n = {}, { 'XDEL', stream }, 6 + targets, 2
  for i, o in ipairs(outcomes) do
    if not owned or owned[i] then
      local fine, reply = pcall(settle_one, o, fixed, key)
      replies[i] = fine and reply or bury_corrupt(fixed, o)
      n = n + 1
      gone[n] = o.entry
    else
      replies[i] = 0
    end
    key = key + (o.mode.r and 4 or 2)
  end
  if n > 2 then redis.call(unpack(gone)) end
  return replies
end
