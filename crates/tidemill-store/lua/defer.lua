-- Puts work aside until it is due: a retry, a delay, a parked call. The entry's fields wait as MessagePack beside the due time.
-- Replies per entry: 1 deferred | 0 stale, or a second request of a run that waits (dropped) | -1 conflict (the step is not in flight by this entry) | -3 run gone.
-- Keys after the fixed ones: (run, audit, records) per entry; a plain job repeats the stream there.
-- Args after the fixed ones, per entry: entry, member, in_ms, at_ms (one of them 0), state, note, run step ('' for a job), name,
-- ran_ms, attempt, change count, then (field, value) pairs that replace or join the entry's fields.
local function defer(keys, args)
  local stream, due, deferred, queues = unpack(keys, 1, 4)
  local group, who, queue, entries = unpack(args, 1, 4)
  local now, replies, arg = now_ms(), {}, 5
  -- whoever promotes looks at known queues only
  redis.call('SADD', queues, queue)
  for i = 1, tonumber(entries) do
    local o, member, in_ms, at_ms, why, changes = {}, nil, nil, nil, nil, nil
    o.entry, member, in_ms, at_ms, o.state, why, o.slot, o.name, o.ran_ms, o.attempt, changes = unpack(args, arg, arg + 10)
    arg = arg + 11
    local replaced = { _entry = nil, _why = why }
    for c = arg, arg + tonumber(changes) - 1, 2 do replaced[args[c]] = args[c + 1] end
    arg = arg + tonumber(changes)
    local fields = take_off(stream, group, o.entry)
    if not fields or (queue == '@runs' and redis.call('ZSCORE', due, member)) then
      -- the first request of an id is the run: one that waits already is not replaced
      replies[i] = 0
    else
      local at = at_ms ~= '0' and at_ms or plus(now, in_ms)
      local reply = 1
      if o.slot ~= '' then reply = defer_step(o, keys[2 + i * 3], keys[3 + i * 3], keys[4 + i * 3], who, now, at) end
      if reply == 1 then
        if o.slot == '' then replaced._entry = field(fields, '_entry') or o.entry end
        redis.call('HSET', deferred, member, cmsgpack.pack(with_fields(fields, replaced)))
        redis.call('ZADD', due, at, member)
      end
      replies[i] = reply
    end
  end
  return replies
end
