-- Parks work in lines: an entry's fields wait as those of work put aside do, and the line keeps its place. A job that was called up
-- from this line before goes back to where it stood.
-- Replies per entry: 1 parked | 0 stale | -1 conflict (the step is not in flight by this entry) | -3 run gone | -4 a key of its line
-- has another type (nothing was changed).
-- Keys after the fixed ones: (line, turns) per tier, then (run, audit, records) per entry; a plain job repeats the stream there.
-- Args after the fixed ones: one name per tier, then per entry: entry, member, note, run step ('' for a job), name, attempt, tier (its
-- number from 1), tenant, priority, change count, then (field, value) pairs that replace or join the entry's fields.

-- A line as it stands, or nil when one of its keys has another type.
local function open_line(line, turns)
  if refused(redis.pcall('ZCARD', line)) or refused(redis.pcall('HLEN', turns)) then return nil end
  return { line = line, turns = turns, starts = {}, set = {}, places = {} }
end

-- A newcomer's virtual start; `advance` makes the tenant's next job start one later.
local function start_of(line, priority, tenant, advance)
  local turn, starts = 't' .. priority .. ':' .. tenant, line.starts
  if not starts[turn] then
    local found = redis.call('HMGET', line.turns, 'v' .. priority, turn)
    starts[turn] = math.max(tonumber(found[1]) or 0, tonumber(found[2]) or 0)
  end
  local start = starts[turn]
  if advance then
    starts[turn] = start + 1
    line.set[turn] = true
  end
  return start
end

-- The score of a place in the line: that of before, unless the line's clocks began anew since and it would be worse off.
local function place_in(line, priority, tenant, kept)
  priority = math.min(math.max(math.floor(tonumber(priority) or 5), 0), 9)
  local front = (9 - priority) * PRIORITY_SPAN
  if kept and kept <= front + start_of(line, priority, tenant, false) then return score_text(kept), true end
  return score_text(front + start_of(line, priority, tenant, true)), false
end

local function write_turns(line)
  local set, n = {}, 0
  for turn in pairs(line.set) do
    set[n + 1], set[n + 2] = turn, score_text(line.starts[turn])
    n = n + 2
    if n == MAX_FIELDS then
      redis.call('HSET', line.turns, unpack(set, 1, n))
      n = 0
    end
  end
  if n > 0 then redis.call('HSET', line.turns, unpack(set, 1, n)) end
end

-- Takes all entries at once. Whoever settles or moves an entry deletes it, so one that still stands in its stream is the caller's.
local function take_standing(stream, group, wanted)
  local ids, n = { 'XACK', stream, group }, 3
  for _, o in ipairs(wanted) do
    local fields = o.line and fields_of(stream, o.entry)
    if fields and #fields <= MAX_FIELDS then
      n = n + 1
      o.fields, ids[n] = fields, o.entry
    end
  end
  if n == 3 then return end
  redis.call(unpack(ids))
  ids[2], ids[3] = 'XDEL', stream
  redis.call(unpack(ids, 2))
end

-- Gives what was taken its place, and keeps its fields for `write_parked`.
local function park_one(o, p)
  if not o.line then return -4 end
  if not o.fields then return 0 end
  if o.slot ~= '' then
    -- a run whose keys hold something else cannot be carried on, and its entry must not come back for ever
    local fine, reply = pcall(defer_step, o, o.run, o.audit, o.records, p.who, p.now, '-')
    if not fine then return -3 end
    if reply ~= 1 then return reply end
  else
    o.replaced._entry = field(o.fields, '_entry') or o.entry
  end
  local score, back = place_in(o.line, o.priority, o.tenant, kept_score(o.fields, o.tier))
  o.replaced._line = o.tier
  if not (back and field(o.fields, '_parked_ms')) then o.replaced._parked_ms = p.now end
  local aside, n, places, m = p.aside, #p.aside, o.line.places, #o.line.places
  aside[n + 1], aside[n + 2] = o.member, cmsgpack.pack(with_fields(o.fields, o.replaced))
  places[m + 1], places[m + 2] = score, p.queue .. '|' .. o.member
  return 1
end

local function write_parked(p, open)
  if #p.aside > 0 then redis.call('HSET', p.deferred, unpack(p.aside)) end
  for _, line in pairs(open) do
    if #line.places > 0 then redis.call('ZADD', line.line, unpack(line.places)) end
    write_turns(line)
  end
end

local function park(keys, args)
  local stream, deferred, queues, lines = unpack(keys, 1, 4)
  local group, who, queue, tiers, entries = unpack(args, 1, 5)
  tiers, entries = tonumber(tiers), tonumber(entries)
  -- what cannot be written must show before anything is
  redis.call('SADD', queues, queue)
  redis.call('HLEN', deferred)
  local open, wanted, replies, arg, key = {}, {}, {}, 6 + tiers, 5 + tiers * 2
  for t = 1, tiers do
    open[t] = open_line(keys[3 + t * 2], keys[4 + t * 2])
    if open[t] then redis.call('SADD', lines, args[5 + t]) end
  end
  for i = 1, entries do
    local o, why, tier, changes = { state = 'parked', ran_ms = '0' }, nil, nil, nil
    o.entry, o.member, why, o.slot, o.name, o.attempt, tier, o.tenant, o.priority, changes = unpack(args, arg, arg + 9)
    o.run, o.audit, o.records, o.replaced = keys[key], keys[key + 1], keys[key + 2], { _why = why }
    arg, key = arg + 10, key + 3
    for c = arg, arg + tonumber(changes) - 1, 2 do o.replaced[args[c]] = args[c + 1] end
    arg = arg + tonumber(changes)
    o.tier, o.line = args[5 + tonumber(tier)], open[tonumber(tier)]
    wanted[i] = o
  end
  take_standing(stream, group, wanted)
  local p = { who = who, queue = queue, deferred = deferred, now = now_ms(), aside = {} }
  for i, o in ipairs(wanted) do replies[i] = park_one(o, p) end
  write_parked(p, open)
  return replies
end
