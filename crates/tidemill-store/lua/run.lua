-- A change of one run: collected first, written by one HSET and one XADD. The audit entry carries one record per
-- transition, its field name being the record's sequence number in this run: gapless because HSET and XADD are one call.

local function open_change(run, audit, now, seq)
  -- both lists begin with room for what one step needs, so that they are not grown again and again
  return { run = run, audit = audit, now = now, seq = tonumber(seq) or 0, n = 0, m = 0,
    set = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }, log = { 0, 0, 0, 0, 0, 0, 0, 0 } }
end

local function put(change, name, value)
  local n, set = change.n, change.set
  set[n + 1] = name
  set[n + 2] = value
  change.n = n + 2
end

local function note(change, subject, from, to, at, attempt, who)
  local m, log, seq = change.m, change.log, change.seq + 1
  change.seq = seq
  log[m + 1] = whole(seq)
  log[m + 2] = subject .. ' ' .. from .. ' ' .. to .. ' ' .. at .. ' ' .. attempt .. ' ' .. who
  change.m = m + 2
end

local function write_change(change)
  if change.m > 0 then
    put(change, 'q', whole(change.seq))
    redis.call('XADD', change.audit, '*', unpack(change.log, 1, change.m))
  end
  if change.n > 0 then redis.call('HSET', change.run, unpack(change.set, 1, change.n)) end
end

-- A step's record: state attempt ready started ended worker entry queue; a dash stands for nothing. Behind it, where it has ended with
-- an output, that output's checksum.
local function record(state, attempt, ready, started, ended, who, entry, queue)
  return state .. ' ' .. attempt .. ' ' .. ready .. ' ' .. started .. ' ' .. ended .. ' ' .. who .. ' ' .. entry .. ' ' .. queue
end

local function parse_record(text)
  if not text then return nil end
  local state, attempt, ready, started, ended, who, entry, queue =
    string.match(text, '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)')
  if not state then return nil end
  return { state = state, attempt = attempt, ready = ready, started = started, ended = ended, who = who, entry = entry, queue = queue }
end

-- The queue itself, of a name that may be that of its stream `first`.
local function base(queue)
  return string.match(queue, '^[^:]+')
end

-- The same for a step that is being settled: only what that needs.
local function parse_flight(text)
  if not text then return nil end
  return string.match(text, '^(%S+) %S+ (%S+) (%S+) %S+ %S+ (%S+) ([^%s:]+)')
end

-- pending -> ready: the entry goes to the step's queue and its id into the record. `change.flight` counts what is in flight, in runs
-- whose steps may wait.
local function dispatch(change, run_id, workflow, step, name, stream, queue)
  local entry = redis.call('XADD', stream, '*', 'run', run_id .. ' ' .. workflow .. ' ' .. step)
  put(change, 's' .. step, record('ready', '1', change.now, '-', '-', '-', entry, queue))
  note(change, name, 'pending', 'ready', change.now, '1', '-')
  if change.flight then change.flight = change.flight + 1 end
end

-- running <-> waiting: a run waits when all that is left of it does. Without a count nothing of it waits, ever.
local function keep_flow(change, state)
  if not change.flight then return end
  put(change, 'a', whole(change.flight))
  if change.flight <= 0 and state == 'running' then
    put(change, 'st', 'waiting')
    note(change, '@', 'running', 'waiting', change.now, '0', '-')
  elseif change.flight > 0 and state == 'waiting' then
    put(change, 'st', 'running')
    note(change, '@', 'waiting', 'running', change.now, '0', '-')
  end
end

local STEP_ENDED = { succeeded = true, failed = true, skipped = true, cancelled = true, timed_out = true }
local RUN_ENDED = { succeeded = true, failed = true, cancelled = true, timed_out = true, compensated = true, compensation_failed = true }

-- Ends a run. `places` holds the keys live, ended, cancelled, dead, runs, result, reply; `ending` what to record:
-- id, workflow, from, to, who, output (JSON text), error (JSON text), code, reason, retention_ms, dead_cap and, read from
-- the run, input, ttl_ms, replies and whether its end is to be announced. Steps still in flight record their own end when their
-- entries are met.
local function end_run(change, places, ending)
  local now = change.now
  note(change, '@', ending.from, ending.to, now, '0', ending.who)
  put(change, 'st', ending.to)
  put(change, 't2', now)
  if ending.error ~= '' then put(change, 'err', ending.error) end
  redis.call('ZREM', places.live, ending.id)
  redis.call('ZADD', places.ended, now, ending.id)
  -- a job may have the same id: Redis gives both kinds their ids by the clock
  if ending.to ~= 'succeeded' then redis.call('ZADD', places.cancelled, now, 'run ' .. ending.id) end
  if ending.announce then redis.call('XADD', places.runs, '*', 'ended', ending.id) end
  if ending.to == 'failed' or ending.to == 'timed_out' or ending.to == 'compensated' or ending.to == 'compensation_failed' then
    redis.call('XADD', places.dead, 'MAXLEN', '~', ending.dead_cap, '*', 'code', ending.code, 'reason', ending.reason,
      'stream', change.run, 'entry', '-', 'attempts', '1', 'at_ms', now,
      'job.id', ending.id, 'job.workflow', ending.workflow, 'job.input', ending.input)
  end
  if ending.ttl_ms ~= '0' or ending.replies == '1' then
    local output = ending.output ~= '' and ending.output or 'null'
    local error = ending.error ~= '' and ending.error or 'null'
    local head = '{"id":"' .. ending.id .. '","state":"' .. ending.to .. '","output":' .. output .. ',"error":' .. error .. ',"attempts":1'
    publish(places.result, places.reply, head, ending.ttl_ms, ending.replies, now)
  end
end

-- Whose end others want to hear of: a parent, a group, or steps that wait (fields par, grp, wa).
local function is_heard(par, grp, wa)
  return par or grp or wa or false
end

-- Begins a run's end where something is to be done at it (field `cl`, the queue of its own entries): what it will be is decided, what
-- is under way is stopped or ends by itself, and from now on a part `close` finds out what is next whenever something ends.
-- `o`: id, workflow, to, error, code, reason, whether steps may wait, and output or ref.
local function begin_close(change, places, home, o)
  local now = change.now
  put(change, 'to', o.to)
  put(change, 'cs', '0')
  if o.error and o.error ~= '' then put(change, 'err', o.error) end
  if o.code and o.code ~= '' then
    put(change, 'cc', o.code)
    put(change, 'cr', o.reason)
  end
  if o.output and o.output ~= '' then put(change, 'out', o.output) end
  if o.ref then put(change, 'ref', o.ref) end
  if o.spares then put(change, 'nc', '1') end
  -- its time was for what it did, not for undoing it
  redis.call('ZADD', places.live, '+inf', o.id)
  if o.to ~= 'succeeded' then redis.call('ZADD', places.cancelled, now, 'run ' .. o.id) end
  redis.call('XADD', home, '*', 'run', o.id .. ' ' .. o.workflow, 'close', '1')
  -- steps that wait are woken, to see that nobody waits for them
  if o.wakes then redis.call('XADD', places.runs, '*', 'ended', o.id) end
end

local function expire_run(change, retention_ms)
  redis.call('PEXPIRE', change.run, bounded(retention_ms))
  redis.call('PEXPIRE', change.audit, bounded(retention_ms))
end
