-- Fires a cron entry once: whoever still finds the due time it saw enqueues and sets the next one.
-- Replies: the entry's id | '' when another scheduler was faster.
local function fire(keys, args)
  local due, target, fired = unpack(keys)
  local name, seen_ms, next_ms = unpack(args, 1, 3)
  local at = redis.call('ZSCORE', due, name)
  if not at or tonumber(at) ~= tonumber(seen_ms) then return '' end
  if next_ms == '' then redis.call('ZREM', due, name) else redis.call('ZADD', due, next_ms, name) end
  redis.call('HSET', fired, name, seen_ms)
  if #args == 3 then return '-' end
  return redis.call('XADD', target, '*', unpack(args, 4))
end
