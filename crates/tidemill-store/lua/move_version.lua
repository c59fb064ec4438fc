-- The life of a workflow's version: publishing it is the move from '-', and each later move is made by who still sees it where it
-- stands. The text of a version never changes; publishing the very text again mends it where it was damaged, and is no move.
-- Replies: (1, to) moved | (0, state) not moved: it stands otherwise, or ('-') is not there, or another text has this version
--   | (2, state) this text was published before.
local function move_version(keys, args)
  local texts, versions, newest, changes = unpack(keys, 1, 4)
  local who, why, name, version, from, to, digest, text = unpack(args, 1, 8)
  local known = redis.call('HMGET', versions, version, version .. ':sha256')
  local state, stored = known[1] or '-', redis.call('HGET', texts, version)
  -- a key of another type stops the call here, before anything is written
  redis.call('HGET', newest, name)
  local now = now_ms()
  local function note(was, is)
    redis.call('XADD', changes, 'MAXLEN', '~', '10000', '*', 'workflow', name, 'version', version, 'from', was, 'to', is,
      'why', why, 'by', who, 'at_ms', now)
  end
  if from ~= '-' then
    if state ~= from then return { 0, state } end
    note(from, to)
  elseif state ~= '-' then
    if known[2] ~= digest then return { 0, state } end
    if stored ~= text then
      note(state, state)
      redis.call('HSET', texts, version, text)
    end
    return { 2, state }
  else
    -- a text without a record was not published by this function: it may only be taken as it is
    if stored and stored ~= text then return { 0, '-' } end
    note('-', to)
    redis.call('HSET', texts, version, text)
    redis.call('HSET', versions, version .. ':sha256', digest, version .. ':at', now)
  end
  redis.call('HSET', versions, version, to)
  local best, all = 0, redis.call('HGETALL', versions)
  for i = 1, #all, 2 do
    if all[i + 1] == 'active' then best = math.max(best, tonumber(all[i]) or 0) end
  end
  redis.call('HSET', newest, name, whole(best))
  return { 1, to }
end
