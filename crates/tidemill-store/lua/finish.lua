-- Ends a run, or begins its end where something is to be done at it, with the output that its workflow computes, for the caller who owns the run's `finish` entry.
-- Replies: 1 ended | 0 stale | -1 the run had ended before | -3 run gone.
local function finish(keys, args)
  local stream, run, audit, live, ended, cancelled, dead, result, reply, runs, home = unpack(keys)
  local group, who, dead_cap, entry, id, workflow, to, output, error, code, reason, retention_ms = unpack(args)
  local found = redis.call('HMGET', run, 'st', 'q', 'in', 'rt', 'rp', 'cl', 'to', 'par', 'grp', 'wa')
  if not take(stream, group, entry) then return 0 end
  redis.call('XDEL', stream, entry)
  if not found[1] then return -3 end
  if RUN_ENDED[found[1]] or found[7] or not RUN_ENDED[to] or not RUN_MOVES[found[1] .. ' ' .. to] then return -1 end
  local change = open_change(run, audit, now_ms(), found[2])
  if found[6] then
    begin_close(change, { live = live, cancelled = cancelled, runs = runs }, home,
      { id = id, workflow = workflow, to = to, error = error, code = code, reason = reason, output = output, wakes = found[10] })
    write_change(change)
    return 1
  end
  if output ~= '' then put(change, 'out', output) end
  end_run(change, { live = live, ended = ended, cancelled = cancelled, dead = dead, runs = runs,
    result = result, reply = reply },
    { id = id, workflow = workflow, from = found[1], to = to, who = who, output = output, error = error, code = code,
      reason = reason, dead_cap = dead_cap, input = found[3] or '', ttl_ms = found[4] or '0', replies = found[5] and '1' or '0',
      announce = is_heard(found[8], found[9], found[10]) })
  write_change(change)
  expire_run(change, retention_ms)
  return 1
end
