-- What the functions of the cache share. A value is 16 digits (until when it is fresh), 16 digits (until when it is kept for
-- fallback), and bytes of the caller's. Its bytes count with what Redis needs beside them, so that a bound means memory.

-- Beside a value: its digest three times, two nodes of sorted sets, and the tables that point to them.
local CACHE_OVERHEAD = 400
-- Values that one call takes out at most, and bytes that one call replies at most (and one value more).
local CACHE_MOST_REMOVED, CACHE_MOST_REPLIED = 200, 4194304
-- A use counts half as much after an hour.
local CACHE_HALF_LIFE_US = 3600000000

-- Where a value stands in the order of eviction. The last use alone (lru), or all uses, each halved by time (lfu): the sum of
-- 2^(time of use / half-life), kept as its logarithm, so that no value's rank has to change while nobody uses it (LRFU, Lee et
-- al., IEEE Trans. Computers 50(12), 2001). Both are times in whole microseconds: a service may change from one to the other,
-- and in a small sorted set Redis compares whole numbers many times quicker than others.
local function cache_rank(now_us, was, by)
  if by == 'lfu' and was then
    local apart = math.abs(now_us - was) / CACHE_HALF_LIFE_US
    now_us = math.max(was, now_us) + CACHE_HALF_LIFE_US * math.log(1 + 2 ^ -apart) / math.log(2)
  end
  return string.format('%.0f', now_us)
end

local function cache_now_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- Until when a value is fresh and until when it is kept; nothing where no such value is, or somebody else wrote it.
local function cache_times(value)
  local head = value and string.sub(value, 1, 32)
  if not head or #value < 33 or not string.find(head, '^%d+$') then return nil end
  return tonumber(string.sub(head, 1, 16)), tonumber(string.sub(head, 17, 32))
end

-- The stock of values as one call changes it. Where its parts do not match (a key was deleted by hand) it begins anew.
local function cache_open(values, order, expiry, totals)
  local entries, found = redis.call('HLEN', values), redis.call('HMGET', totals, 'bytes', 'era')
  local stock = {
    values = values, order = order, expiry = expiry, entries = entries, bytes = tonumber(found[1]) or 0,
    era = found[2] or '0', evicted = 0, left = CACHE_MOST_REMOVED,
  }
  if redis.call('ZCARD', order) ~= entries or redis.call('ZCARD', expiry) ~= entries then
    redis.call('UNLINK', values, order, expiry)
    stock.entries = 0
  end
  if stock.entries == 0 then stock.bytes = 0 end
  return stock
end

local function cache_remove(stock, digest)
  local length = redis.call('HSTRLEN', stock.values, digest)
  redis.call('ZREM', stock.order, digest)
  redis.call('ZREM', stock.expiry, digest)
  if redis.call('HDEL', stock.values, digest) == 1 then
    stock.entries, stock.bytes = stock.entries - 1, math.max(stock.bytes - length - CACHE_OVERHEAD, 0)
  end
  stock.left = stock.left - 1
end

-- Makes room for one more value. False where it does not fit, or more would have to go than one call may take out.
local function cache_make_room(stock, max_entries, max_bytes, needed)
  if max_entries < 1 or needed > max_bytes then return false end
  while stock.entries + 1 > max_entries or stock.bytes + needed > max_bytes do
    local lowest = stock.left > 0 and redis.call('ZRANGE', stock.order, '0', '0')[1]
    if not lowest then return false end
    cache_remove(stock, lowest)
    stock.evicted = stock.evicted + 1
  end
  return true
end
