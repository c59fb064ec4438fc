-- Cancels a plain job: at once while it waits, else by asking whoever runs it (workers learn of it with their next beat).
-- A job that is gone at once leaves the result that it asked to be kept. `line` is the line that it waits in, if it does; it may be
-- left out.
-- Replies: 'cancelled' | 'requested'.
local function keep_cancelled(fields, id, result, now)
  local ttl_ms = fields and field(fields, 'result_ttl_ms')
  if ttl_ms and string.match(ttl_ms, '^%d+$') and tonumber(ttl_ms) > 0 then
    local head = '{"id":"' .. id .. '","state":"cancelled","output":null,"error":{"code":"cancelled","message":"cancelled before it began"},"attempts":0'
    redis.call('SET', result, head .. ',"finished_at_ms":' .. now .. '}', 'PX', bounded(ttl_ms))
  end
end

-- Who waits for a run that will not be hears of it.
local function tell_of(stream, fields)
  if fields and field(fields, '_parent') then
    redis.call('XADD', stream, '*', 'ended', field(fields, '_id') or field(fields, 'id') or '-')
  end
end

local function cancel(keys, args)
  local stream, due, deferred, cancelled, result, line = unpack(keys)
  local id, group, reason, queue = unpack(args)
  local now = now_ms()
  redis.call('ZREMRANGEBYSCORE', cancelled, '-inf', minus(now, '86400000'))
  local waits = redis.call('ZREM', due, 'j:' .. id) == 1
  if not waits and line and queue then waits = redis.pcall('ZREM', line, queue .. '|j:' .. id) == 1 end
  if waits then
    local packed = redis.call('HGET', deferred, 'j:' .. id)
    redis.call('HDEL', deferred, 'j:' .. id)
    local fields = packed and cmsgpack.unpack(packed)
    keep_cancelled(fields, id, result, now)
    -- whoever starts runs lets the next of its group have the turn
    local of_group = fields and field(fields, '_group')
    if of_group then redis.call('XADD', stream, '*', 'left', id .. ' ' .. of_group) end
    tell_of(stream, fields)
    return 'cancelled'
  end
  if string.match(id, '^%d+%-%d+$') then
    local held = redis.pcall('XPENDING', stream, group, id, id, '1')
    local fields = (held.err or #held == 0) and fields_of(stream, id)
    if fields and not field(fields, 'run') and redis.call('XDEL', stream, id) == 1 then
      keep_cancelled(fields, id, result, now)
      tell_of(stream, fields)
      return 'cancelled'
    end
  end
  redis.call('ZADD', cancelled, now, id)
  return 'requested'
end
