-- Calls members up from a line: each becomes a new entry of its queue's stream `first`, with a ticket for the line's tier. Of two
-- schedulers one wins.
-- Replies per member: 1 called up | 2 called up only to end, its run has ended | 0 not there (any more) | -1 dropped (its fields or its
-- run are gone) | -4 a key has another type: it went back a thousand places, so that others pass.
-- Keys after the fixed ones: (deferred, stream) per queue, then (run, audit, records) per member; a plain job repeats the line there.
-- Args after the fixed ones: (queue, name of its stream) per queue, then per member: member, queue (its number from 1), slot, name,
-- slot and name being '' for a plain job.
local SENT_BACK = 1000

-- The fields that waited, with the ticket and the score that go with it.
local function ticketed(fields, tier, score)
  local tickets, scores, out, n = '', '', {}, 0
  local old, next_score = field(fields, '_ticket') or '', string.gmatch(field(fields, '_score') or '', '%S+')
  for ticket in string.gmatch(old, '%S+') do
    local its = next_score() or '-'
    if ticket ~= tier then tickets, scores = tickets .. ticket .. ' ', scores .. its .. ' ' end
  end
  for i = 1, #fields, 2 do
    local name = fields[i]
    if name ~= '_ticket' and name ~= '_score' and name ~= '_line' then
      out[n + 1], out[n + 2] = name, fields[i + 1]
      n = n + 2
    end
  end
  out[n + 1], out[n + 2], out[n + 3], out[n + 4] = '_ticket', tickets .. tier, '_score', scores .. score
  return out
end

local function call_up_one(m, c)
  local score = redis.call('ZSCORE', c.line, m.place)
  if not score then return 0 end
  local packed = redis.call('HGET', m.deferred, m.member)
  local found, was = {}, nil
  if m.slot ~= '' then
    found, was = redis.call('HMGET', m.run, 'st', 'q'), parse_record(redis.call('HGET', m.records, m.slot))
  end
  if not packed or (m.slot ~= '' and not found[1]) then
    redis.call('ZREM', c.line, m.place)
    redis.call('HDEL', m.deferred, m.member)
    return -1
  end
  -- what cannot be added stays where it is
  local entry = redis.call('XADD', m.stream, '*', unpack(ticketed(cmsgpack.unpack(packed), c.tier, score)))
  redis.call('ZREM', c.line, m.place)
  redis.call('HDEL', m.deferred, m.member)
  local priority, start = parts_of(tonumber(score))
  c.fronts['v' .. priority] = math.max(c.fronts['v' .. priority] or 0, start)
  if was then
    local change = open_change(m.run, m.audit, c.now, found[2])
    note(change, m.name, was.state, 'ready', c.now, was.attempt, '-')
    local text = record('ready', was.attempt, c.now, '-', '-', '-', entry, m.target)
    if m.records == m.run then put(change, m.slot, text) else redis.call('HSET', m.records, m.slot, text) end
    write_change(change)
  end
  return RUN_ENDED[found[1]] and 2 or 1
end

-- A tenant whose next start is not ahead of the line is as good as new: some of those are forgotten with each call.
local function forget_idle(turns, members)
  if redis.call('HLEN', turns) < 64 then return end
  local found = redis.call('HSCAN', turns, redis.call('HGET', turns, 'cursor') or '0', 'COUNT', 16 + members * 4)
  local fronts, idle = redis.call('HMGET', turns, 'v0', 'v1', 'v2', 'v3', 'v4', 'v5', 'v6', 'v7', 'v8', 'v9'), {}
  for i = 1, #found[2], 2 do
    local priority = string.match(found[2][i], '^t(%d):')
    if priority and tonumber(found[2][i + 1]) <= (tonumber(fronts[priority + 1]) or 0) then idle[#idle + 1] = found[2][i] end
  end
  redis.call('HSET', turns, 'cursor', found[1])
  for from = 1, #idle, MAX_FIELDS do redis.call('HDEL', turns, unpack(idle, from, math.min(from + MAX_FIELDS - 1, #idle))) end
end

-- Brings the line's clocks up to date; an empty line is taken down.
local function close_line(c, turns, lines, members)
  if redis.call('ZCARD', c.line) == 0 then
    redis.call('DEL', turns)
    redis.call('SREM', lines, c.tier)
    return
  end
  for front, start in pairs(c.fronts) do
    if start > (tonumber(redis.call('HGET', turns, front)) or -1) then redis.call('HSET', turns, front, score_text(start)) end
  end
  forget_idle(turns, members)
end

local function call_up(keys, args)
  local line, turns, lines = unpack(keys, 1, 3)
  local tier, queues, members = unpack(args, 1, 3)
  queues, members = tonumber(queues), tonumber(members)
  -- what has another type must show before anything is written
  redis.call('ZCARD', line)
  redis.call('HLEN', turns)
  redis.call('SCARD', lines)
  local c = { line = line, tier = tier, now = now_ms(), fronts = {} }
  local replies, key, arg = {}, 4 + queues * 2, 4 + queues * 2
  for i = 1, members do
    local m, queue = { run = keys[key], audit = keys[key + 1], records = keys[key + 2] }, nil
    m.member, queue, m.slot, m.name = unpack(args, arg, arg + 3)
    queue = tonumber(queue)
    m.deferred, m.stream = keys[2 + queue * 2], keys[3 + queue * 2]
    m.place, m.target = args[2 + queue * 2] .. '|' .. m.member, args[3 + queue * 2]
    key, arg = key + 3, arg + 4
    local fine, reply = pcall(call_up_one, m, c)
    if not fine then
      reply = -4
      local score = redis.call('ZSCORE', line, m.place)
      if score then redis.call('ZADD', line, 'XX', score_text(tonumber(score) + SENT_BACK), m.place) end
    end
    replies[i] = reply
  end
  close_line(c, turns, lines, members)
  return replies
end
