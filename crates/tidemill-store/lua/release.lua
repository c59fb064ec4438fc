-- Moves entries that one consumer holds to new entries: handed back at a drain, or taken from a dead worker. A new entry id is
-- the fence: whoever held the old one finds it gone. With `beat` set, nothing happens unless the consumer still stands there.
-- Replies per entry: the new entry's id | '' when somebody else was faster | 'unmovable' (more fields than one call can carry).
-- Keys after the fixed ones: (run, audit, records) per entry; a plain job repeats the stream there.
-- Args after the fixed ones: (entry, slot, name, attempt) per entry; slot is '' for anything but a step or an item.
local function release(keys, args)
  local stream, beats = unpack(keys, 1, 2)
  local group, who, consumer, beat, deaths, entries = unpack(args, 1, 6)
  local now, replies = now_ms(), {}
  if beat ~= '' and (redis.call('HGET', beats, consumer) or '-') ~= beat then return replies end
  for i = 1, tonumber(entries) do
    local entry, slot, name, attempt = unpack(args, 3 + i * 4, 6 + i * 4)
    local run, audit, records = unpack(keys, i * 3, i * 3 + 2)
    local fields = fields_of(stream, entry)
    replies[i] = ''
    if fields and #fields > MAX_FIELDS then
      replies[i] = 'unmovable'
    elseif take(stream, group, entry) and fields then
      local count = (tonumber(field(fields, '_deaths')) or 0) + tonumber(deaths)
      local changes = { _deaths = count }
      if not field(fields, 'run') then changes._entry = field(fields, '_entry') or entry end
      replies[i] = redis.call('XADD', stream, '*', unpack(with_fields(fields, changes)))
      redis.call('XDEL', stream, entry)
      if slot ~= '' then
        local found, was = redis.call('HMGET', run, 'st', 'q'), parse_record(redis.call('HGET', records, slot))
        if found[1] and was and was.entry == entry then
          local change = open_change(run, audit, now, found[2])
          if was.state == 'ready' then
            note(change, name, 'ready', 'running', now, attempt, consumer)
            note(change, name, 'running', 'ready', now, attempt, who)
          end
          local text = record('ready', attempt, now, '-', '-', '-', replies[i], was.queue)
          if was.state == 'running' then text = record('running', attempt, was.ready, was.started, '-', was.who, replies[i], was.queue) end
          if records == run then put(change, slot, text) else redis.call('HSET', records, slot, text) end
          write_change(change)
        end
      end
    end
  end
  return replies
end
