-- Recognises a repeated id among entries that the caller has just claimed: the first entry of an id is the job, any other is
-- dropped. A job that moved is known by its first entry, so a retry is never taken for a repetition.
-- Replies per entry: 1 accepted | 0 duplicate (dropped).
-- Keys after the fixed one: one id marker per entry. Args after the fixed ones: (entry, first entry, keep_ms) per entry.
local function accept(keys, args)
  local stream = keys[1]
  local group, entries = unpack(args, 1, 2)
  local replies = {}
  for i = 1, tonumber(entries) do
    local entry, first, keep_ms = unpack(args, i * 3, i * 3 + 2)
    keep_ms = bounded(keep_ms)
    local holder = redis.call('SET', keys[1 + i], first, 'NX', 'GET', 'PX', keep_ms)
    if not holder or holder == first then
      replies[i] = 1
    elseif holder == 'accepted' then
      redis.call('SET', keys[1 + i], first, 'PX', keep_ms)
      replies[i] = 1
    else
      replies[i] = 0
      if take(stream, group, entry) then redis.call('XDEL', stream, entry) end
    end
  end
  return replies
end
