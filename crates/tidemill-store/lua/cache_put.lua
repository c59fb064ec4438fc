-- Stores answers in the cache of a service and ends their fills. First goes what nobody may have any more, then what comes last
-- in the order, so that neither bound is exceeded; what would need more than one call may take out is not stored.
-- Replies values stored in all, their bytes, how many were evicted, then per value: 1 stored | 0 no room | -1 begun in another era
-- (the cache was cleared meanwhile).
-- Args after the fixed ones, per value: digest, era, ttl_ms, keep_ms (how long beyond it), value.
local function cache_store(stock, digest, value, rank, kept)
  redis.call('HSET', stock.values, digest, value)
  redis.call('ZADD', stock.order, rank, digest)
  redis.call('ZADD', stock.expiry, kept, digest)
  stock.entries, stock.bytes = stock.entries + 1, stock.bytes + #value + CACHE_OVERHEAD
end

-- All ends by itself with the last value; the era stays a day longer, for those who fill.
local function cache_close(stock, totals, now)
  local last = redis.call('ZRANGE', stock.expiry, '-1', '-1', 'WITHSCORES')[2]
  if last then
    last = string.format('%.0f', last)
    redis.call('PEXPIREAT', stock.values, last)
    redis.call('PEXPIREAT', stock.order, last)
    redis.call('PEXPIREAT', stock.expiry, last)
  end
  redis.call('HSET', totals, 'bytes', string.format('%.0f', stock.bytes))
  redis.call('PEXPIREAT', totals, string.format('%.0f', math.max(tonumber(last or 0), now + 86400000)))
end

local function cache_put(keys, args)
  local values, order, expiry, totals, fills, fillers = unpack(keys)
  local max_entries, max_bytes, by, count = unpack(args, 1, 4)
  local now_us, replies = cache_now_us(), {}
  local now = math.floor(now_us / 1000)
  redis.call('ZCARD', fills)
  redis.call('HLEN', fillers)
  local stock = cache_open(values, order, expiry, totals)
  for _, digest in ipairs(redis.call('ZRANGEBYSCORE', expiry, '-inf', whole(now), 'LIMIT', '0', whole(stock.left))) do
    cache_remove(stock, digest)
  end
  for i = 1, tonumber(count) do
    local digest, era, ttl_ms, keep_ms, value = unpack(args, i * 5, i * 5 + 4)
    local reply = -1
    if era == stock.era then
      local fresh = math.min(now + tonumber(ttl_ms), LONGEST_MS)
      local kept = math.min(fresh + tonumber(keep_ms), LONGEST_MS)
      local was = tonumber(redis.call('ZSCORE', order, digest))
      value = string.format('%016.0f%016.0f', fresh, kept) .. value
      -- what it replaces makes room first
      if was then cache_remove(stock, digest) end
      reply = 0
      if cache_make_room(stock, tonumber(max_entries), tonumber(max_bytes), #value + CACHE_OVERHEAD) then
        cache_store(stock, digest, value, cache_rank(now_us, was, by), string.format('%.0f', kept))
        reply = 1
      end
      redis.call('ZREM', fills, digest)
      redis.call('HDEL', fillers, digest)
    end
    replies[i + 3] = reply
  end
  replies[1], replies[2], replies[3] = stock.entries, stock.bytes, stock.evicted
  cache_close(stock, totals, now)
  return replies
end
