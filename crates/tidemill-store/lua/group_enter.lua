-- Asks for a place in a group, of which at most `limit` runs are under way at once: who asked first goes first.
-- Replies: the verdict (1 has a place | 0 waits | -1 refused | -2 a key holds something else), how many wait before it, and then the
-- members that must go for it, which only `cancel_older` names. Asking again changes nothing.

-- More than this many are not sent away by one call; whoever comes next sends on.
local MOST_GONE = 500

local function is_older(a, b)
  if a.asked ~= b.asked then return a.asked < b.asked end
  return a.member < b.member
end

-- The oldest `count` of two sorted sets, oldest first; each knows whether it waits.
local function oldest(holders, waiting, count)
  local all = {}
  for _, key in ipairs({ holders, waiting }) do
    local rows = redis.call('ZRANGE', key, 0, count - 1, 'WITHSCORES')
    for i = 1, #rows, 2 do
      all[#all + 1] = { member = rows[i], asked = tonumber(rows[i + 1]), waits = key == waiting }
    end
  end
  table.sort(all, is_older)
  for i = #all, count + 1, -1 do all[i] = nil end
  return all
end

local function group_enter(keys, args)
  local groups, holders, waiting = unpack(keys)
  local name, limit, on_full, member, asked = unpack(args)
  local held, waits, most = redis.pcall('ZCARD', holders), redis.pcall('ZCARD', waiting), tonumber(limit)
  if type(held) == 'table' or type(waits) == 'table' then return { '-2', '0' } end
  redis.call('HSET', groups, name, limit)
  if redis.call('ZSCORE', holders, member) then return { '1', '0' } end
  if not redis.call('ZSCORE', waiting, member) then
    if on_full == 'cancel_newer' and held + waits >= most then return { '-1', '0' } end
    redis.call('ZADD', waiting, asked, member)
    waits = waits + 1
  end
  local gone, ahead, refused = {}, redis.call('ZRANK', waiting, member), false
  if on_full == 'cancel_older' and held + waits > most then
    for _, one in ipairs(oldest(holders, waiting, math.min(held + waits - most, MOST_GONE))) do
      if one.member == member then
        refused = true
      else
        gone[#gone + 1] = one.member
        if one.waits then ahead = ahead - 1 end
      end
    end
  end
  if refused then
    redis.call('ZREM', waiting, member)
    return { '-1', '0', unpack(gone) }
  end
  local free = most - held
  if ahead < free then
    redis.call('ZREM', waiting, member)
    redis.call('ZADD', holders, asked, member)
    return { '1', '0', unpack(gone) }
  end
  return { '0', whole(ahead), unpack(gone) }
end
