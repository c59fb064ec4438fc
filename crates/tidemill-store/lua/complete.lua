-- Settles plain jobs whose results are kept or sent, all in the same way. (Jobs that leave nothing behind need no function: XACK and
-- XDEL.) Also used for jobs that ended without success and without a dead letter (cancelled).
-- Replies per job: 1 recorded | 0 stale.
-- Keys after the fixed one, per job: result, and with `replies` = 1 the stream of the caller's. Args after the fixed ones: (entry, head)
-- per job, where head is the result's JSON, or that without its end time and closing brace, which are then added.

-- Which of the entries the caller owns, acknowledging them. One XACK for all tells whether all are owned, which they nearly always
-- are; else an entry that was not is one that is gone from the stream, because whoever settles or moves an entry deletes it.
local function take_all(stream, group, args, jobs)
  local ack, n = { 'XACK', stream, group }, 3
  for i = 1, jobs do
    ack[n + i] = args[i * 2 + 3]
  end
  if redis.call(unpack(ack)) == jobs then return nil end
  local owned = {}
  for i = 1, jobs do
    owned[i] = fields_of(stream, args[i * 2 + 3]) ~= nil
  end
  return owned
end

local function complete(keys, args)
  local stream = keys[1]
  local group, ttl_ms, has_reply, jobs = unpack(args, 1, 4)
  jobs, ttl_ms = tonumber(jobs), bounded(ttl_ms)
  local owned = take_all(stream, group, args, jobs)
  local tail, kept, sent = ',"finished_at_ms":' .. now_ms() .. '}', ttl_ms ~= '0', has_reply == '1'
  local replies, gone, n, key = {}, { 'XDEL', stream }, 2, 2
  for i = 1, jobs do
    local at = i * 2 + 3
    if not owned or owned[i] then
      local result = args[at + 1]
      if string.byte(result, -1) ~= 125 then result = result .. tail end
      if kept then redis.call('PSETEX', keys[key], ttl_ms, result) end
      -- the caller's own key: of another type it must not undo what was settled
      if sent then redis.pcall('XADD', keys[key + 1], 'MAXLEN', '~', '100000', '*', 'result', result) end
      n = n + 1
      gone[n] = args[at]
      replies[i] = 1
    else
      replies[i] = 0
    end
    key = key + (sent and 2 or 1)
  end
  if n > 2 then redis.call(unpack(gone)) end
  return replies
end
