-- The mail of a run's waiting steps, one hash per run: `k:<step>` the keys of what a step has not read, `<step>:<key>` each of them,
-- `l:<signal>` the steps that listen, `b:<signal>` signals that came before anybody listened, `i:<id>` signals that were taken in.

-- Puts a letter into a step's box; false when one of that key is there already.
local function post(mail, step, key, payload)
  if redis.call('HSETNX', mail, step .. ':' .. key, payload) == 0 then return false end
  local keys = redis.call('HGET', mail, 'k:' .. step)
  redis.call('HSET', mail, 'k:' .. step, keys and keys .. ' ' .. key or key)
  return true
end

-- Takes read letters out of a step's box; true when others are left.
local function clear_box(mail, step, read)
  local left = redis.call('HGET', mail, 'k:' .. step)
  if not left then return false end
  local gone = {}
  for _, key in ipairs(read) do
    gone[key] = true
    redis.call('HDEL', mail, step .. ':' .. key)
  end
  local kept = {}
  for key in string.gmatch(left, '%S+') do
    if not gone[key] then kept[#kept + 1] = key end
  end
  if #kept == 0 then
    redis.call('HDEL', mail, 'k:' .. step)
    return false
  end
  redis.call('HSET', mail, 'k:' .. step, table.concat(kept, ' '))
  return true
end

-- waiting -> ready: an entry goes to the step's queue.
local function wake(change, state, target, o, was)
  local fields = { 'run', o.id .. ' ' .. o.workflow .. ' ' .. o.step }
  if was.attempt ~= '1' then fields[3], fields[4] = 'attempt', was.attempt end
  local entry = redis.call('XADD', target, '*', unpack(fields))
  put(change, 's' .. o.step, record('ready', was.attempt, change.now, '-', '-', '-', entry, base(was.queue)))
  note(change, o.name, 'waiting', 'ready', change.now, was.attempt, '-')
  if not RUN_ENDED[state] and change.flight then
    change.flight = change.flight + 1
    keep_flow(change, state)
  end
end

-- Takes a step off the lists of signals that it does not listen for any more.
local function listen_no_more(mail, step, names)
  local before = redis.call('HGET', mail, 'h:' .. step)
  if before then
    local wanted = {}
    for _, name in ipairs(names) do wanted[name] = true end
    for name in string.gmatch(before, '%S+') do
      local listeners = not wanted[name] and redis.call('HGET', mail, 'l:' .. name)
      if listeners then
        local left = {}
        for other in string.gmatch(listeners, '%S+') do
          if other ~= step then left[#left + 1] = other end
        end
        if #left == 0 then redis.call('HDEL', mail, 'l:' .. name) else redis.call('HSET', mail, 'l:' .. name, table.concat(left, ' ')) end
      end
    end
  end
  if #names > 0 then
    redis.call('HSET', mail, 'h:' .. step, table.concat(names, ' '))
  elseif before then
    redis.call('HDEL', mail, 'h:' .. step)
  end
end

-- Begins or goes on listening: a signal that came before is taken at once, else the step is put on the list.
local function listen(mail, step, name)
  local early = redis.call('HGET', mail, 'b:' .. name)
  if early then
    local letters = cmsgpack.unpack(early)
    local first = table.remove(letters, 1)
    if #letters == 0 then
      redis.call('HDEL', mail, 'b:' .. name)
    else
      redis.call('HSET', mail, 'b:' .. name, cmsgpack.pack(letters))
    end
    redis.call('HINCRBY', mail, 'early', -1)
    return post(mail, step, 'signal.' .. first[1], first[2])
  end
  local listeners = redis.call('HGET', mail, 'l:' .. name)
  if not listeners then
    redis.call('HSET', mail, 'l:' .. name, step)
  elseif not string.find(' ' .. listeners .. ' ', ' ' .. step .. ' ', 1, true) then
    redis.call('HSET', mail, 'l:' .. name, listeners .. ' ' .. step)
  end
  return false
end

-- A step's letters, unread, the oldest first: keys and payloads in turn. Not more than one reply should carry: whoever puts the step to
-- wait finds it ready again for the rest.
local MOST_LETTERS, MOST_LETTER_BYTES = 500, 4194304

local function read_mail(keys, args)
  local mail = keys[1]
  local step = args[1]
  local out, n, bytes = {}, 0, 0
  for key in string.gmatch(redis.call('HGET', mail, 'k:' .. step) or '', '%S+') do
    if n >= MOST_LETTERS * 2 or bytes >= MOST_LETTER_BYTES then break end
    local payload = redis.call('HGET', mail, step .. ':' .. key) or ''
    out[n + 1], out[n + 2] = key, payload
    n, bytes = n + 2, bytes + #payload
  end
  return out
end
