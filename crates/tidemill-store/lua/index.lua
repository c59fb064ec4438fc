-- Where runs are looked for: all of them by their start, and the sorted sets `from` to `to` of `keys`: those of its labels, and the
-- children of who asked for it. `labels` is kept so that its places are found again when the run itself is gone; nil for none.
-- A foreign key in one of these places must not undo a start.
local function index_run(started, labelled, id, now, labels, keys, from, to)
  redis.pcall('ZADD', started, now, id)
  for i = from, to do redis.pcall('ZADD', keys[i], now, id) end
  if labels then redis.pcall('HSET', labelled, id, labels) end
end
