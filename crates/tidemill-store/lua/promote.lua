-- Due work becomes ready: a new entry with the fields that waited. Of two schedulers one wins.
-- Replies per member: 1 promoted | 0 not there, or not due.
-- Keys after the fixed ones: (run, audit, records) per member; a plain job repeats the stream there.
-- Args after the fixed ones: (member, slot, name) per member, slot and name being '' for a plain job.
local function promote(keys, args)
  local due, deferred, stream = unpack(keys, 1, 3)
  local members = args[1]
  local now, replies = now_ms(), {}
  for i = 1, tonumber(members) do
    local member, slot, name = unpack(args, i * 3 - 1, i * 3 + 1)
    local run, audit, records = unpack(keys, 1 + i * 3, 3 + i * 3)
    local at = redis.call('ZSCORE', due, member)
    replies[i] = 0
    if at and tonumber(at) <= tonumber(now) then
      local packed = redis.call('HGET', deferred, member)
      -- what cannot be added stays where it is
      local entry = packed and redis.call('XADD', stream, '*', unpack(cmsgpack.unpack(packed)))
      redis.call('ZREM', due, member)
      redis.call('HDEL', deferred, member)
      if packed then
        if slot ~= '' then
          local found, was = redis.call('HMGET', run, 'st', 'q'), parse_record(redis.call('HGET', records, slot))
          if found[1] and was then
            local change = open_change(run, audit, now, found[2])
            local attempt = was.state == 'retrying' and tonumber(was.attempt) + 1 or was.attempt
            note(change, name, was.state, 'ready', now, attempt, '-')
            local text = record('ready', attempt, now, '-', '-', '-', entry, base(was.queue))
            if records == run then put(change, slot, text) else redis.call('HSET', records, slot, text) end
            write_change(change)
          end
        end
        replies[i] = 1
      end
    end
  end
  return replies
end
