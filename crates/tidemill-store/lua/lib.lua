-- Pieces that several functions share. Laws of this library: one TIME per call, every key from `keys`, everything
-- checked before the first write, no payload or workflow is ever parsed, replies are integers and flat arrays.

-- Lua cannot pass more values than this to one command; a job has about twenty.
local MAX_FIELDS = 6000

local function now_ms()
  local time = redis.call('TIME')
  return string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
end

-- A whole number as text. Redis and Lua would write it by way of floating point, which costs several times as much.
local WHOLE = {}

local function whole(number)
  local text = WHOLE[number]
  if not text then
    text = string.format('%d', number)
    if number >= 0 and number < 1024 then WHOLE[number] = text end
  end
  return text
end

-- Times beyond this (285,000 years) mean for ever: Redis refuses longer ones, and a refusal midway undoes nothing.
local LONGEST_MS = 9000000000000000

-- A duration that Redis takes as it stands.
local function bounded(ms)
  if #ms < 16 or tonumber(ms) <= LONGEST_MS then return ms end
  return whole(LONGEST_MS)
end

local function minus(now, ms)
  return string.format('%d', math.max(now - ms, 0))
end

local function plus(now, ms)
  return string.format('%d', math.min(now + ms, LONGEST_MS))
end

-- The fence: true when the caller still owned the entry. Whoever gets false must not change anything.
local function take(stream, group, entry)
  return redis.call('XACK', stream, group, entry) == 1
end

-- The fields of an entry as they stand in its stream; nil when it is gone.
local function fields_of(stream, entry)
  local found = redis.call('XRANGE', stream, entry, entry)
  return found[1] and found[1][2]
end

-- A flat field list with some of its fields replaced or added.
local function with_fields(fields, changes)
  local out, n = {}, 0
  for i = 1, #fields, 2 do
    if changes[fields[i]] == nil then
      out[n + 1], out[n + 2] = fields[i], fields[i + 1]
      n = n + 2
    end
  end
  for name, value in pairs(changes) do
    out[n + 1], out[n + 2] = name, value
    n = n + 2
  end
  return out
end

local function field(fields, name)
  for i = 1, #fields, 2 do
    if fields[i] == name then return fields[i + 1] end
  end
  return nil
end

-- A result as the wire contract writes it. `head` is `{"id":…,"attempts":n` from the caller; only the time is added.
local function publish(result_key, reply_key, head, ttl_ms, replies, now)
  if ttl_ms ~= '0' then
    redis.call('SET', result_key, head .. ',"finished_at_ms":' .. now .. '}', 'PX', bounded(ttl_ms))
  end
  if replies == '1' then
    -- the caller's own key: of another type it must not undo what was settled
    redis.pcall('XADD', reply_key, 'MAXLEN', '~', '100000', '*', 'result', head .. ',"finished_at_ms":' .. now .. '}')
  end
end
