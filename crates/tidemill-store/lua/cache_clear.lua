-- Forgets every answer of a service, and begins a new era: what is being fetched now was asked for before, and is not stored.
-- Replies how many values there were.
local function cache_clear(keys, args)
  local values, order, expiry, totals, fills, fillers = unpack(keys)
  local keep_ms = args[1]
  local entries = redis.call('TYPE', values).ok == 'hash' and redis.call('HLEN', values) or 0
  redis.call('UNLINK', values, order, expiry, totals, fills, fillers)
  redis.call('HSET', totals, 'bytes', '0', 'era', string.format('%.0f', cache_now_us()))
  redis.call('PEXPIRE', totals, bounded(keep_ms))
  return entries
end
