-- Moves entries that one consumer holds to new entries at the end of their stream: handed back at a drain. A new entry id is the
-- fence: whoever held the old one finds it gone. With `beat` set, nothing happens unless the consumer still stands there.
-- Replies per entry: the new entry's id | '' when somebody else was faster | 'unmovable' (more fields than one call can carry).
-- Keys after the fixed ones: (run, audit, records) per entry; a plain job repeats the stream there.
-- Args after the fixed ones: (entry, slot, name, attempt) per entry; slot is '' for anything but a step or an item.

-- A step's or item's record follows its entry; `queue` is where that now stands.
local function follow(move, run, audit, records, entry, slot, name, attempt, moved)
  local found, was = redis.call('HMGET', run, 'st', 'q'), parse_record(redis.call('HGET', records, slot))
  if not found[1] or not was or was.entry ~= entry then return end
  local change, queue = open_change(run, audit, move.now, found[2]), move.queue ~= '' and move.queue or was.queue
  if was.state == 'ready' then
    note(change, name, 'ready', 'running', move.now, attempt, move.consumer)
    note(change, name, 'running', 'ready', move.now, attempt, move.who)
  end
  local text = record('ready', attempt, move.now, '-', '-', '-', moved, queue)
  if was.state == 'running' then text = record('running', attempt, was.ready, was.started, '-', was.who, moved, queue) end
  if records == run then put(change, slot, text) else redis.call('HSET', records, slot, text) end
  write_change(change)
end

-- Moves the entries that `args` names from `arg` on, with their keys from `key` on.
local function move_entries(move, keys, key, args, arg, entries)
  local replies = {}
  if move.beat ~= '' and (redis.call('HGET', move.beats, move.consumer) or '-') ~= move.beat then return replies end
  for i = 0, tonumber(entries) - 1 do
    local entry, slot, name, attempt = unpack(args, arg + i * 4, arg + i * 4 + 3)
    local fields = fields_of(move.stream, entry)
    local reply = ''
    if fields and #fields > MAX_FIELDS then
      reply = 'unmovable'
    elseif take(move.stream, move.group, entry) and fields then
      local count = (tonumber(field(fields, '_deaths')) or 0) + tonumber(move.deaths)
      local changes = { _deaths = count }
      if not field(fields, 'run') then changes._entry = field(fields, '_entry') or entry end
      reply = redis.call('XADD', move.target, '*', unpack(with_fields(fields, changes)))
      redis.call('XDEL', move.stream, entry)
      if slot ~= '' then
        follow(move, keys[key + i * 3], keys[key + i * 3 + 1], keys[key + i * 3 + 2], entry, slot, name, attempt, reply)
      end
    end
    replies[i + 1] = reply
  end
  return replies
end

local function release(keys, args)
  local stream, beats = unpack(keys, 1, 2)
  local group, who, consumer, beat, deaths, entries = unpack(args, 1, 6)
  local move = { stream = stream, target = stream, beats = beats, group = group, who = who, consumer = consumer, beat = beat,
    deaths = deaths, queue = '', now = now_ms() }
  return move_entries(move, keys, 3, args, 7, entries)
end
