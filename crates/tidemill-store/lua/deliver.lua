-- Puts letters into the boxes of steps and makes those ready that wait. A letter without a key only wakes; one with `expect` = 'due' is
-- the step's own alarm, which is checked here again, any other text must be the step's record as it stands.
-- Replies per letter: 1 it woke the step | 2 the step reads it later | 0 it was there already, or is not due | -1 the step has ended, does
-- not exist, or is not as expected | -3 run gone.
-- Keys after the fixed ones: (run, audit, mail, target) per letter. Args after the fixed one: the nine below per letter.
local function deliver_one(due, deferred, o, keys, at, now)
  local run, audit, mail, target = unpack(keys, at, at + 3)
  local found = redis.call('HMGET', run, 'st', 'q', 'a', 's' .. o.step)
  local state, was = found[1], parse_record(found[4])
  local is_due = o.expect == 'due'
  if is_due then
    local at_ms = redis.call('ZSCORE', due, o.member)
    if not at_ms or tonumber(at_ms) > tonumber(now) then return 0 end
    local generation = redis.call('HGET', deferred, o.member) or '0'
    o.key, o.payload = 'due.' .. generation, '{"type":"due","generation":' .. generation .. '}'
    redis.call('ZREM', due, o.member)
    redis.call('HDEL', deferred, o.member)
  end
  if not state then return -3 end
  if not was or STEP_ENDED[was.state] then return -1 end
  if not is_due and o.expect ~= '' and o.expect ~= found[4] then return -1 end
  -- of a run that has ended nobody reads letters any more, and its mail is gone
  local news = o.key == '' or RUN_ENDED[state] or post(mail, o.step, o.key, o.payload)
  -- one that waits has read all: should a letter lie there all the same, it is woken for it
  if was.state ~= 'waiting' then return news and 2 or 0 end
  local change = open_change(run, audit, now, found[2])
  change.flight = tonumber(found[3]) or 0
  wake(change, state, target, o, was)
  write_change(change)
  return 1
end

local function deliver(keys, args)
  local due, deferred = unpack(keys, 1, 2)
  local letters = args[1]
  local now, replies = now_ms(), {}
  for i = 1, tonumber(letters) do
    local o, at = {}, 2 + (i - 1) * 8
    o.id, o.workflow, o.step, o.name, o.key, o.payload, o.expect, o.member = unpack(args, at, at + 7)
    local fine, reply = pcall(deliver_one, due, deferred, o, keys, 3 + (i - 1) * 4, now)
    replies[i] = fine and reply or -3
  end
  return replies
end
