-- Looks calls up in the cache of a service. Of all who miss one call at once, one gets the right to fill it: a lease, which it
-- renews here and which passes on when it does not. Who holds a lease and asks again gets it again, so a lost reply costs nothing.
-- Replies the era (a value that was begun in another is refused), then per look-up (code, ms, value): 0 nothing is kept | 1 hit,
-- fresh for `ms` more | 2 kept, stale for `ms` | 3 fill | 4 wait, the filler's lease ends in `ms` | 5 ask again: the reply is full.
-- Args after the fixed ones: a digest per renewal, then (digest, mode) per look-up: `fresh` | `distrust` what is stored: fill it
-- anew | `kept` whatever is kept, without filling.
local function cache_take_lease(lease, digest)
  local ends = tonumber(redis.call('ZSCORE', lease.fills, digest) or 0)
  if ends > lease.now and redis.call('HGET', lease.fillers, digest) ~= lease.filler then return 4, ends - lease.now, '' end
  redis.call('ZADD', lease.fills, whole(lease.ends), digest)
  redis.call('HSET', lease.fillers, digest, lease.filler)
  lease.taken = true
  return 3, 0, ''
end

local function cache_get(keys, args)
  local values, order, totals, fills, fillers = unpack(keys)
  local filler, lease_ms, by, renewals, lookups = unpack(args, 1, 5)
  local now_us = cache_now_us()
  local now, arg, sent = math.floor(now_us / 1000), 6, 0
  local replies = { redis.call('HGET', totals, 'era') or '0' }
  local lease = { fills = fills, fillers = fillers, filler = filler, now = now, ends = now + tonumber(lease_ms) }
  -- keys of another type are refused here, before anything is written
  redis.call('HLEN', values)
  redis.call('ZCARD', order)
  redis.call('HLEN', fillers)
  local ended = redis.call('ZRANGEBYSCORE', fills, '-inf', whole(now), 'LIMIT', '0', '1000')
  for i = arg, arg + tonumber(renewals) - 1 do
    if redis.call('HGET', fillers, args[i]) == filler then cache_take_lease(lease, args[i]) end
  end
  for i = 1, #ended do
    if tonumber(redis.call('ZSCORE', fills, ended[i])) <= now then
      redis.call('ZREM', fills, ended[i])
      redis.call('HDEL', fillers, ended[i])
    end
  end
  arg = arg + tonumber(renewals)
  for i = 1, tonumber(lookups) do
    local digest, mode = unpack(args, arg, arg + 1)
    arg = arg + 2
    local code, ms, value = 5, 0, ''
    if sent < CACHE_MOST_REPLIED then
      local stored = mode ~= 'distrust' and redis.call('HGET', values, digest)
      local fresh, kept = cache_times(stored)
      if fresh and fresh > now then
        code, ms, value = 1, fresh - now, string.sub(stored, 33)
        local was = by == 'lfu' and tonumber(redis.call('ZSCORE', order, digest))
        redis.call('ZADD', order, 'XX', cache_rank(now_us, was, by), digest)
      elseif mode ~= 'kept' then
        code, ms, value = cache_take_lease(lease, digest)
      elseif kept and kept > now then
        code, ms, value = 2, now - fresh, string.sub(stored, 33)
      else
        code = 0
      end
    end
    sent = sent + #value
    replies[i * 3 - 1], replies[i * 3], replies[i * 3 + 1] = code, ms, value
  end
  if lease.taken then
    -- every lease is as long as this one: none outlives the keys
    redis.call('PEXPIRE', fills, whole(lease_ms + 1000))
    redis.call('PEXPIRE', fillers, whole(lease_ms + 1000))
  end
  return replies
end
