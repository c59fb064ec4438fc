-- Settles plain jobs whose results are kept or sent. (Jobs that leave nothing behind need no function: XACK and XDEL.)
-- Also used for jobs that ended without success and without a dead letter (cancelled).
-- Replies per job: 1 recorded | 0 stale.
-- Keys after the fixed one: (result, reply) per job, the stream standing in for a reply that is not wanted. Args after the fixed
-- ones: (entry, head, ttl_ms, replies) per job, where head is the result's JSON without its end time and closing brace.

-- Which of the entries the caller owns, acknowledging them. One XACK for all tells whether all are owned, which they nearly always
-- are; else an entry that was not is one that is gone from the stream, because whoever settles or moves an entry deletes it.
local function take_all(stream, group, args, jobs)
  local ack, n = { 'XACK', stream, group }, 3
  for i = 1, jobs do
    ack[n + i] = args[i * 4 - 1]
  end
  if redis.call(unpack(ack)) == jobs then return nil end
  local owned = {}
  for i = 1, jobs do
    owned[i] = fields_of(stream, args[i * 4 - 1]) ~= nil
  end
  return owned
end

local function complete(keys, args)
  local stream = keys[1]
  local group, jobs = unpack(args, 1, 2)
  jobs = tonumber(jobs)
  local owned = take_all(stream, group, args, jobs)
  local tail = ',"finished_at_ms":' .. now_ms() .. '}'
  local replies, gone = {}, { 'XDEL', stream }
  for i = 1, jobs do
    local at = i * 4 - 1
    if not owned or owned[i] then
      local result = args[at + 1] .. tail
      if args[at + 2] ~= '0' then redis.call('PSETEX', keys[i * 2], args[at + 2], result) end
      -- the caller's own key: of another type it must not undo what was settled
      if args[at + 3] == '1' then redis.pcall('XADD', keys[i * 2 + 1], 'MAXLEN', '~', '100000', '*', 'result', result) end
      gone[#gone + 1] = args[at]
      replies[i] = 1
    else
      replies[i] = 0
    end
  end
  if #gone > 2 then redis.call(unpack(gone)) end
  return replies
end
