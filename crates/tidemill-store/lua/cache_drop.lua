-- Gives fills up that came to nothing, so that the next who asks may fill at once.
-- Replies per digest: 1 given up | 0 it was not the caller's any more.
-- Args after the fixed ones: one digest per fill.
local function cache_drop(keys, args)
  local fills, fillers = unpack(keys)
  local filler, count = unpack(args, 1, 2)
  local replies = {}
  redis.call('ZCARD', fills)
  for i = 1, tonumber(count) do
    local digest = args[2 + i]
    replies[i] = 0
    if redis.call('HGET', fillers, digest) == filler then
      redis.call('ZREM', fills, digest)
      replies[i] = redis.call('HDEL', fillers, digest)
    end
  end
  return replies
end
