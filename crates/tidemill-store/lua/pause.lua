-- Pauses or resumes (`text` is empty) a run, by the field `pz` of its hash, or a workflow or queue, by a field of the hash of what is
-- paused; and notes it.
-- Replies: 1 done | 2 it was so already | -1 the run has ended or is ending | -3 run gone.
local function pause(keys, args)
  local holder, operations = unpack(keys)
  local field, text, kind, subject, by, why = unpack(args)
  if field == 'pz' then
    local found = redis.call('HMGET', holder, 'st', 'to')
    if not found[1] then return -3 end
    if RUN_ENDED[found[1]] or found[2] then return -1 end
  end
  if (redis.call('HEXISTS', holder, field) == 1) == (text ~= '') then return 2 end
  if text == '' then
    redis.call('HDEL', holder, field)
  else
    redis.call('HSET', holder, field, text)
  end
  -- what is paused with another is no operation of its own
  if kind ~= '' then
    redis.call('XADD', operations, 'MAXLEN', '~', '100000', '*', 'kind', kind, 'subject', subject, 'step', '', 'by', by, 'why', why)
  end
  return 1
end
