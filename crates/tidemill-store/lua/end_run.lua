-- Ends a run from outside: cancelled by a person, or past its deadline (`expect` = '<'), which is checked again here. Where something
-- is to be done at its end, that begins (`spares` = '1': what was done is not undone); with `expect` = '!' it is given up.
-- Replies: 1 ended | 2 its end has begun | 0 it had ended, is ending, or its deadline is not reached | -3 run gone.
local function end_run_now(keys, args)
  local run, audit, live, ended, cancelled, dead, result, reply, runs, home = unpack(keys)
  local id, to, who, error, code, reason, expect, dead_cap, spares = unpack(args)
  local found = redis.call('HMGET', run, 'st', 'q', 'in', 'rt', 'rp', 'wf', 'rms', 'cl', 'to', 'par', 'grp', 'wa')
  local state, now = found[1], now_ms()
  if not state then
    redis.call('ZREM', live, id)
    return -3
  end
  if RUN_ENDED[state] or not RUN_ENDED[to] or not RUN_MOVES[state .. ' ' .. to] then return 0 end
  if expect == '<' then
    local deadline = redis.call('ZSCORE', live, id)
    if not deadline or tonumber(deadline) > tonumber(now) then return 0 end
  end
  if found[9] and expect ~= '!' then return 0 end
  local change = open_change(run, audit, now, found[2])
  if found[8] and expect ~= '!' then
    begin_close(change, { live = live, cancelled = cancelled, runs = runs }, home,
      { id = id, workflow = found[6], to = to, error = error, code = code, reason = reason, spares = spares == '1',
        wakes = found[12] })
    write_change(change)
    return 2
  end
  end_run(change, { live = live, ended = ended, cancelled = cancelled, dead = dead, runs = runs,
    result = result, reply = reply },
    { id = id, workflow = found[6], from = state, to = to, who = who, output = '', error = error, code = code, reason = reason,
      dead_cap = dead_cap, input = found[3] or '', ttl_ms = found[4] or '0', replies = found[5] and '1' or '0',
      announce = is_heard(found[10], found[11], found[12]) })
  write_change(change)
  expire_run(change, found[7] or '86400000')
  return 1
end
