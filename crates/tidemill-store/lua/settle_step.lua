-- Records the outcomes of steps that the caller owns, counts them at their dependents, dispatches those that fire and ends
-- the run (or asks for its output) after the last. A step of index '' only carries on a wide fan-out.
-- Replies per step: 1 recorded | 2 recorded and the run ended | 0 stale | -1 conflict (not in flight by this entry) |
-- -3 run gone | -4 a key has another type (the entry went to the dead letters).
-- Mode letters: k a success | f makes the run fail at its end | x fails the run now | s its output is the run's | d did not run |
-- w steps of the run may wait | z something is done at the run's end | u the step is one of those that do it |
-- and what follows: o an output with its checksum | e an error | m where the fan-out goes on | r the run has a result to publish.
-- Keys after the fixed ones: one stream per target queue, then per step (run, audit) and with r (result, reply).
-- Args after the fixed ones: one queue name per target, then per step the twelve named below, with o (output, checksum), with e (error,
-- code, reason), with m (more), and per dependent (step, name, ended, ok, target): it fires when its counters reach `ended` ends
-- or `ok` successes.

-- The letters of a mode as a set; there are few, and each is taken apart once.
local MODES = {}

local function mode_of(letters)
  local mode = MODES[letters]
  if not mode then
    mode = {}
    for letter in string.gmatch(letters, '%a') do mode[letter] = true end
    mode.extra = (mode.o and 2 or 0) + (mode.e and 3 or 0) + (mode.m and 1 or 0)
    MODES[letters] = mode
  end
  return mode
end

-- Where an outcome's twelve fixed arguments stand, counted from its first.
local ENTRY, ID, WORKFLOW, STEP, NAME, TO, ATTEMPT, RAN_MS, STEPS, MODE, RETENTION_MS, DEPENDENTS = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11

-- The variable arguments: output, error, code, reason, more, and where the dependents begin.
local function read_rest(args, at, mode)
  local output, error, code, reason, more = '', '', '', '', ''
  at = at + 12
  if mode.o then
    output = args[at]
    at = at + 2
  end
  if mode.e then
    error, code, reason = args[at], args[at + 1], args[at + 2]
    at = at + 3
  end
  if mode.m then
    more = args[at]
    at = at + 1
  end
  return output, error, code, reason, more, at
end

-- Counts this end at one dependent and dispatches it when it fires; `at` is where the dependent stands, `of` the outcome.
local function count_end(change, fixed, of, at, seen_ended, seen_ok, success, alive)
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
    if wanted > 0 and success then
      put(change, 'k' .. step, whole(seen_ok + 1))
      fires = fires or (seen_ok + 1 == wanted and seen_ended <= ended)
    end
  end
  if alive and fires then
    local target = tonumber(args[at + 4])
    dispatch(change, args[of + ID], args[of + WORKFLOW], step, args[at + 1], fixed.keys[6 + target], args[4 + target])
  end
end

-- The fields of the run that an outcome needs.
local function wanted_fields(step, args, first, dependents, mode)
  local last = mode.w or mode.z
  if dependents == 0 and not last then return 'st', 'q', 'd', 'f', 's' .. step end
  local names, n = { 'st', 'q', 'd', 'f', 's' .. step, 0, 0 }, 5
  for at = first, first + dependents * 5 - 5, 5 do
    names[n + 1] = 'c' .. args[at]
    names[n + 2] = 'k' .. args[at]
    n = n + 2
  end
  if last then
    names[n + 1] = 'a'
    names[n + 2] = 'to'
    n = n + 2
  end
  return unpack(names, 1, n)
end

-- Ends the run with this outcome.
local function end_with(change, fixed, of, state, to, mode, key)
  local args, keys = fixed.args, fixed.keys
  local output, error, code, reason = read_rest(args, of, mode)
  -- a step that succeeded has an error too when something stood in for it; that is not the run's
  if not (mode.f or mode.x) then error, code, reason = '', '', '' end
  local found = redis.call('HMGET', change.run, 'in', 'rt', 'rp', 'err', 'par', 'grp', 'wa')
  local ending = { id = args[of + ID], workflow = args[of + WORKFLOW], from = state, to = to, who = fixed.who, output = '', error = '',
    code = code, reason = reason, dead_cap = fixed.dead_cap, input = found[1] or '', ttl_ms = mode.r and found[2] or '0',
    replies = mode.r and found[3] and '1' or '0', announce = is_heard(found[5], found[6], found[7]) }
  if to == 'succeeded' then
    ending.output = output
    put(change, 'ref', args[of + STEP])
  else
    ending.error = error ~= '' and error or found[4] or ''
    if error == '' then ending.code, ending.reason = 'step_failed', 'a step failed: see the run' end
    if ending.error == '' then ending.error = '{"code":"step_failed","message":"a step failed: see the run"}' end
  end
  if mode.z then
    ending.ref, ending.wakes = to == 'succeeded' and args[of + STEP] or nil, mode.w
    return begin_close(change, fixed, keys[7], ending)
  end
  end_run(change, { live = fixed.live, ended = fixed.ended, cancelled = fixed.cancelled, dead = fixed.dead,
    runs = fixed.runs, result = mode.r and keys[key + 2], reply = mode.r and keys[key + 3] }, ending)
end

-- Records the end itself; replies how many steps have ended and how many failed.
local function record_end(change, fixed, of, mode, flight, done, failed)
  local args, now, who = fixed.args, change.now, fixed.who
  local step, name, to, attempt, started = args[of + STEP], args[of + NAME], args[of + TO], args[of + ATTEMPT], flight.started
  if mode.d then
    note(change, name, flight.state, to, now, attempt, who)
  else
    if flight.state == 'ready' then
      local ran_ms = args[of + RAN_MS]
      started = ran_ms == '0' and now or minus(now, ran_ms)
      note(change, name, 'ready', 'running', started, attempt, who)
    end
    note(change, name, 'running', to, now, attempt, who)
  end
  local ended = record(to, attempt, flight.ready, started, now, who, '-', flight.queue)
  put(change, 's' .. step, mode.o and ended .. ' ' .. args[of + 13] or ended)
  local output, error = read_rest(args, of, mode)
  if mode.o then put(change, 'o' .. step, output) end
  if mode.e then put(change, 'e' .. step, error) end
  -- what waits is not in flight
  if change.flight and flight.state ~= 'waiting' then change.flight = change.flight - 1 end
  if mode.u then return 0, 0 end
  done = (tonumber(done) or 0) + 1
  put(change, 'd', whole(done))
  failed = tonumber(failed) or 0
  if mode.f then
    failed = failed + 1
    put(change, 'f', whole(failed))
    put(change, 'err', error)
  end
  return done, failed
end

local function settle_one(of, mode, fixed, key)
  local keys, args = fixed.keys, fixed.args
  local run, step, to, dependents = keys[key], args[of + STEP], args[of + TO], tonumber(args[of + DEPENDENTS])
  local first = of + 12 + mode.extra
  local found = redis.call('HMGET', run, wanted_fields(step, args, first, dependents, mode))
  local state, carries_on, closing = found[1], step == '', found[7 + dependents * 2]
  if not state then return -3 end
  local flight, entry = {}, nil
  if not carries_on then
    flight.state, flight.ready, flight.started, entry, flight.queue = parse_flight(found[5])
    if entry ~= args[of] or not STEP_ENDED[to] or not STEP_MOVES[(mode.d and flight.state or 'running') .. ' ' .. to] then return -1 end
  end

  local change = open_change(run, keys[key + 1], fixed.now, found[2])
  if mode.w then change.flight = tonumber(found[6 + dependents * 2]) or 0 end
  local alive, done, failed = not RUN_ENDED[state] and not closing, 0, 0
  if not carries_on then done, failed = record_end(change, fixed, of, mode, flight, found[3], found[4]) end
  local fails = alive and mode.x
  local goes_on = alive and not fails
  for d = 0, dependents - 1 do
    count_end(change, fixed, of, first + d * 5, found[6 + d * 2], found[7 + d * 2], mode.k, goes_on)
  end
  if goes_on and mode.m then
    redis.call('XADD', keys[7], '*', 'run', args[of + ID] .. ' ' .. args[of + WORKFLOW], 'fan', carries_on and args[of + NAME] or step,
      'from', args[first - 1], 'mode', args[of + MODE])
  end
  local last = goes_on and not mode.m and not carries_on and done == tonumber(args[of + STEPS])
  local ends = false
  if fails or (last and (failed > 0 or mode.s)) then
    ends = true
    end_with(change, fixed, of, state, (fails or failed > 0) and 'failed' or 'succeeded', mode, key)
  elseif last then
    redis.call('XADD', keys[7], '*', 'run', args[of + ID] .. ' ' .. args[of + WORKFLOW], 'finish', '1')
  elseif closing and not RUN_ENDED[state] then
    redis.call('XADD', keys[7], '*', 'run', args[of + ID] .. ' ' .. args[of + WORKFLOW], 'close', '1')
  elseif goes_on and mode.m then
    if change.flight then put(change, 'a', whole(change.flight)) end
  elseif goes_on then
    keep_flow(change, state)
  end
  write_change(change)
  ends = ends and not mode.z
  if ends then expire_run(change, args[of + RETENTION_MS]) end
  return ends and 2 or 1
end

-- Which entries the caller owns, acknowledging them: one XACK for all tells whether all are, which is nearly always so. Else one
-- that was not is gone from its stream, because whoever settles or moves an entry deletes it.
local function take_steps(stream, group, args, outcomes)
  local ack = { 'XACK', stream, group }
  for i, of in ipairs(outcomes) do ack[3 + i] = args[of] end
  if redis.call(unpack(ack)) == #outcomes then return nil end
  local owned = {}
  for i, of in ipairs(outcomes) do owned[i] = fields_of(stream, args[of]) ~= nil end
  return owned
end

-- A run whose keys hold something else: its entry must not come back for ever.
local function bury_corrupt(fixed, of)
  local args = fixed.args
  redis.call('XADD', fixed.dead, 'MAXLEN', '~', fixed.dead_cap, '*', 'code', 'corrupt_run', 'reason',
    'a key of the run holds something that Tidemill did not write', 'stream', fixed.stream, 'entry', args[of], 'attempts',
    args[of + ATTEMPT], 'at_ms', fixed.now, 'job.run', args[of + ID] .. ' ' .. args[of + WORKFLOW] .. ' ' .. args[of + STEP])
  return -4
end

local function settle_step(keys, args)
  local stream, live, ended, cancelled, dead, runs = unpack(keys, 1, 6)
  local group, who, dead_cap, targets = unpack(args, 1, 4)
  targets = tonumber(targets)
  local fixed = { stream = stream, live = live, ended = ended, cancelled = cancelled, dead = dead, runs = runs, group = group, who = who,
    dead_cap = dead_cap, now = now_ms(), keys = keys, args = args }
  local outcomes, at = {}, 6 + targets
  for i = 1, tonumber(args[5 + targets]) do
    outcomes[i] = at
    at = at + 12 + mode_of(args[at + MODE]).extra + tonumber(args[at + DEPENDENTS]) * 5
  end
  local owned = take_steps(stream, group, args, outcomes)
  local replies, gone, key, n = {}, { 'XDEL', stream }, 7 + targets, 2
  for i, of in ipairs(outcomes) do
    local mode = mode_of(args[of + MODE])
    if not owned or owned[i] then
      local fine, reply = pcall(settle_one, of, mode, fixed, key)
      replies[i] = fine and reply or bury_corrupt(fixed, of)
      n = n + 1
      gone[n] = args[of]
    else
      replies[i] = 0
    end
    key = key + (mode.r and 4 or 2)
  end
  if n > 2 then redis.call(unpack(gone)) end
  return replies
end
