-- Renews a process's liveness and tells it what was cancelled since it last asked.
-- Replies: the time, then what was cancelled at or after `since_ms`, newest first: `<id>` a job, `run <id>` a run.
local function beat(keys, args)
  local beats, cancelled = unpack(keys)
  local consumer, number, since_ms = unpack(args)
  redis.call('HSET', beats, consumer, number)
  local reply = redis.call('ZREVRANGEBYSCORE', cancelled, '+inf', since_ms, 'LIMIT', '0', '10000')
  table.insert(reply, 1, now_ms())
  return reply
end
