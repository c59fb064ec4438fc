-- Ends a run from outside: cancelled by a person, or past its deadline (`expect` = '<'), which is checked again here.
-- Replies: 1 ended | 0 it had ended, or its deadline is not reached | -3 run gone.
local function end_run_now(keys, args)
  local run, audit, live, ended, cancelled, dead, result, reply = unpack(keys)
  local id, to, who, error, code, reason, expect, dead_cap = unpack(args)
  local found = redis.call('HMGET', run, 'st', 'q', 'in', 'rt', 'rp', 'wf', 'rms')
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
  local change = open_change(run, audit, now, found[2])
  end_run(change, { live = live, ended = ended, cancelled = cancelled, dead = dead, result = result, reply = reply },
    { id = id, workflow = found[6], from = state, to = to, who = who, output = '', error = error, code = code, reason = reason,
      dead_cap = dead_cap, input = found[3] or '', ttl_ms = found[4] or '0', replies = found[5] and '1' or '0' })
  write_change(change)
  expire_run(change, found[7] or '86400000')
  return 1
end
