-- Gives a place in a group back, or the wait for one; '' for nobody. Replies the members whose turn it is, who asked first first, at
-- most `most`: they wait until they ask for their place themselves, so a lost reply loses nobody.
local function group_leave(keys, args)
  local groups, holders, waiting = unpack(keys)
  local name, member, most = unpack(args)
  if member ~= '' then
    redis.call('ZREM', holders, member)
    redis.call('ZREM', waiting, member)
  end
  local held, waits = redis.call('ZCARD', holders), redis.call('ZCARD', waiting)
  if held + waits == 0 then
    redis.call('HDEL', groups, name)
    return {}
  end
  local free = math.min((tonumber(redis.call('HGET', groups, name)) or 0) - held, tonumber(most))
  if free <= 0 then return {} end
  return redis.call('ZRANGE', waiting, 0, free - 1)
end
