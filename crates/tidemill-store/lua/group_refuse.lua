-- Ends a requested run before it began, for the caller who owns the request: it is recorded as cancelled, and its caller is told.
-- Replies: 1 recorded | 0 stale | -2 a run of that id exists (the request is dropped).
-- Keys after the fixed ones: the sorted sets that it is entered in. Args after the fixed ones: the run's fields.
local function group_refuse(keys, args)
  local requests, run, audit, live, ended, cancelled, dead, started, labelled, result, reply = unpack(keys, 1, 11)
  local group, who, entry, id, workflow, error, code, reason, ttl_ms, has_reply, keep_ms, input = unpack(args, 1, 12)
  local exists = redis.call('EXISTS', run) == 1
  if not take(requests, group, entry) then return 0 end
  redis.call('XDEL', requests, entry)
  if exists then return -2 end
  local change = open_change(run, audit, now_ms(), 0)
  put(change, 'wf', workflow)
  put(change, 't1', change.now)
  put(change, 'in', input)
  local labels, announce = nil, false
  for i = 13, #args, 2 do
    put(change, args[i], args[i + 1])
    if args[i] == 'lb' then labels = args[i + 1] end
    if args[i] == 'par' then announce = true end
  end
  end_run(change, { live = live, ended = ended, cancelled = cancelled, dead = dead, runs = requests, result = result, reply = reply },
    { id = id, workflow = workflow, from = 'queued', to = 'cancelled', who = who, output = '', error = error, code = code,
      reason = reason, dead_cap = '0', input = input, ttl_ms = ttl_ms, replies = has_reply, announce = announce })
  write_change(change)
  index_run(started, labelled, id, change.now, labels, keys, 12, #keys)
  expire_run(change, keep_ms)
  return 1
end
