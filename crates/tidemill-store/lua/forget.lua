-- Deletes a consumer of each stream where it holds nothing, and its liveness when it is gone from all of them.
-- Replies: how many streams still hold entries of it.
local function forget(keys, args)
  local beats, members = unpack(keys, 1, 2)
  local consumer, beat, streams = unpack(args, 1, 3)
  if beat ~= '' and (redis.call('HGET', beats, consumer) or '-') ~= beat then return -1 end
  local left = 0
  for i = 1, tonumber(streams) do
    local stream, group = keys[2 + i], args[3 + i]
    local held = redis.pcall('XPENDING', stream, group, '-', '+', '1', consumer)
    if not held.err then
      if #held == 0 then redis.call('XGROUP', 'DELCONSUMER', stream, group, consumer) else left = left + 1 end
    end
  end
  if left == 0 then
    redis.call('HDEL', beats, consumer)
    redis.call('HDEL', members, consumer)
  end
  return left
end
