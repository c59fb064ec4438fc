-- Takes jobs or runs in with an answer: refuses when the queue is full, recognises a repeated id, puts delayed work aside.
-- An id's marker holds its first entry, or 'accepted' while the work waits for its time.
-- Replies per job: the entry's id | 'deferred' | 'duplicate' | 'full'.
-- Keys after the fixed ones: one id marker per job (the stream again where it has no id of its own).
-- Args after the fixed ones, per job: id ('' none; delayed work needs one), keep_ms of the marker, at_ms (0 now), in_ms, field count, fields….
local function enqueue(keys, args)
  local stream, due, deferred, queues = unpack(keys, 1, 4)
  local queue, max_length, jobs = unpack(args, 1, 3)
  local now, replies, arg = now_ms(), {}, 4
  local room = tonumber(max_length) - redis.call('XLEN', stream)
  if tonumber(max_length) == 0 then room = math.huge end
  redis.call('SADD', queues, queue)
  for i = 1, tonumber(jobs) do
    local id, keep_ms, at_ms, in_ms, count = unpack(args, arg, arg + 4)
    keep_ms = bounded(keep_ms)
    local first, last = arg + 5, arg + 4 + tonumber(count)
    arg = last + 1
    local at = in_ms ~= '0' and plus(now, in_ms) or at_ms
    if room < 1 then
      replies[i] = 'full'
    elseif id ~= '' and redis.call('EXISTS', keys[4 + i]) == 1 then
      replies[i] = 'duplicate'
    elseif tonumber(at) > tonumber(now) then
      if id ~= '' then redis.call('SET', keys[4 + i], 'accepted', 'PX', keep_ms) end
      redis.call('HSET', deferred, 'j:' .. id, cmsgpack.pack({ unpack(args, first, last) }))
      redis.call('ZADD', due, at, 'j:' .. id)
      replies[i] = 'deferred'
    else
      replies[i] = redis.call('XADD', stream, '*', unpack(args, first, last))
      if id ~= '' then redis.call('SET', keys[4 + i], replies[i], 'PX', keep_ms) end
      room = room - 1
    end
  end
  return replies
end
