-- Moves entries of a dead consumer to the stream `first`, which workers read before the queue's own: work that had begun does not
-- wait again behind all that has not. `queue` is the name of `first` in records. Nothing happens unless the consumer still stands at
-- `beat`.
-- Replies, keys and args per entry are those of `release`.
local function reclaim(keys, args)
  local stream, first, beats = unpack(keys, 1, 3)
  local group, who, consumer, beat, deaths, queue, entries = unpack(args, 1, 7)
  local move = { stream = stream, target = first, beats = beats, group = group, who = who, consumer = consumer, beat = beat,
    deaths = deaths, queue = queue, now = now_ms() }
  return move_entries(move, keys, 4, args, 8, entries)
end
