-- What is next at a run's end, for the caller who owns its `close` entry: nothing yet ('wait'), a step that undoes another ('undo') or
-- comes last ('last'), or the end itself ('end'). `seen` is the number of such steps that the caller knew of: of two one wins.
-- Replies: 1 done | 2 done, and the run ended | 0 stale | -1 somebody was faster, or the run had ended | -3 run gone.
local function close(keys, args)
  local stream, run, audit, target, live, ended, cancelled, dead, result, reply, runs = unpack(keys)
  local group, who, dead_cap, entry, id, workflow, seen, action, step, name, queue, to, retention_ms = unpack(args)
  local found = redis.call('HMGET', run, 'st', 'q', 'to', 'cs', 'a', 'in', 'rt', 'rp', 'err', 'out', 'ref', 'cc', 'cr', 'par', 'grp', 'wa')
  if not take(stream, group, entry) then return 0 end
  redis.call('XDEL', stream, entry)
  local state = found[1]
  if not state then return -3 end
  if RUN_ENDED[state] or not found[3] or found[4] ~= seen then return -1 end
  if action == 'wait' then return 1 end
  local change = open_change(run, audit, now_ms(), found[2])
  if action ~= 'end' then
    if redis.call('HEXISTS', run, 's' .. step) == 1 then return -1 end
    if action == 'undo' and state ~= 'compensating' then
      put(change, 'st', 'compensating')
      note(change, '@', state, 'compensating', change.now, '0', who)
    end
    put(change, 'cs', whole(tonumber(seen) + 1))
    dispatch(change, id, workflow, step, name, target, queue)
    write_change(change)
    return 1
  end
  if not RUN_ENDED[to] or not RUN_MOVES[state .. ' ' .. to] then return -1 end
  local output = ''
  if to == 'succeeded' then output = found[10] or (found[11] and redis.call('HGET', run, 'o' .. found[11])) or '' end
  end_run(change, { live = live, ended = ended, cancelled = cancelled, dead = dead, runs = runs, result = result, reply = reply },
    { id = id, workflow = workflow, from = state, to = to, who = who, output = output, error = found[9] or '', code = found[12] or 'step_failed',
      reason = found[13] or 'a step failed: see the run', dead_cap = dead_cap, input = found[6] or '', ttl_ms = found[7] or '0',
      replies = found[8] and '1' or '0', announce = is_heard(found[14], found[15], found[16]) })
  write_change(change)
  expire_run(change, retention_ms)
  return 2
end
