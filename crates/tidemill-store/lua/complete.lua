-- Settles plain jobs whose results are kept or sent. (Jobs that leave nothing behind need no function: XACK and XDEL.)
-- Also used for jobs that ended without success and without a dead letter (cancelled).
-- Replies per job: 1 recorded | 0 stale.
-- Keys after the fixed one: (result, reply) per job. Args after the fixed ones: (entry, head, ttl_ms, replies) per job, where
-- head is the result's JSON without its end time and closing brace.
local function complete(keys, args)
  local stream = keys[1]
  local group, jobs = unpack(args, 1, 2)
  local now, replies, gone = now_ms(), {}, { 'XDEL', stream }
  for i = 1, tonumber(jobs) do
    local entry, head, ttl_ms, has_reply = unpack(args, i * 4 - 1, i * 4 + 2)
    if take(stream, group, entry) then
      publish(keys[i * 2], keys[i * 2 + 1], head, ttl_ms, has_reply, now)
      replies[i] = 1
      gone[#gone + 1] = entry
    else
      replies[i] = 0
    end
  end
  if #gone > 2 then redis.call(unpack(gone)) end
  return replies
end
