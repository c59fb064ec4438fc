-- Moves entries to the dead letters with their original fields, and publishes their failed results where one is wanted.
-- Replies per entry: 1 buried | 0 stale.
-- Keys after the fixed ones: (result, reply) per entry. Args after the fixed ones: (entry, code, reason, attempts, head, ttl_ms, replies).
local function bury(keys, args)
  local stream, dead = unpack(keys, 1, 2)
  local group, dead_cap, entries = unpack(args, 1, 3)
  local now, replies = now_ms(), {}
  for i = 1, tonumber(entries) do
    local entry, code, reason, attempts, head, ttl_ms, has_reply = unpack(args, i * 7 - 3, i * 7 + 3)
    local fields = fields_of(stream, entry) or {}
    if take(stream, group, entry) then
      local letter = { 'code', code, 'reason', reason, 'stream', stream, 'entry', field(fields, '_entry') or entry, 'attempts', attempts, 'at_ms', now }
      for f = 1, math.min(#fields, 2000), 2 do
        if string.sub(fields[f], 1, 1) ~= '_' then
          letter[#letter + 1] = 'job.' .. fields[f]
          letter[#letter + 1] = fields[f + 1]
        end
      end
      redis.call('XADD', dead, 'MAXLEN', '~', dead_cap, '*', unpack(letter))
      redis.call('XDEL', stream, entry)
      publish(keys[1 + i * 2], keys[2 + i * 2], head, ttl_ms, has_reply, now)
      replies[i] = 1
    else
      replies[i] = 0
    end
  end
  return replies
end
