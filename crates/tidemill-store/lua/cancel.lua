-- Cancels a plain job: at once while it waits, else by asking whoever runs it (workers learn of it with their next beat).
-- Replies: 'cancelled' | 'requested'.
local function cancel(keys, args)
  local stream, due, deferred, cancelled = unpack(keys)
  local id, group, reason = unpack(args)
  local now = now_ms()
  redis.call('ZREMRANGEBYSCORE', cancelled, '-inf', minus(now, '86400000'))
  if redis.call('ZREM', due, 'j:' .. id) == 1 then
    redis.call('HDEL', deferred, 'j:' .. id)
    return 'cancelled'
  end
  if string.match(id, '^%d+%-%d+$') then
    local held = redis.pcall('XPENDING', stream, group, id, id, '1')
    if (held.err or #held == 0) and redis.call('XDEL', stream, id) == 1 then return 'cancelled' end
  end
  redis.call('ZADD', cancelled, now, id)
  return 'requested'
end
