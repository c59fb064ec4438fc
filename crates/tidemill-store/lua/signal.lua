-- Sends a signal to a run: the first of the steps that listen gets it; where none does it is kept until one will.
-- Replies: 1 taken by a step | 3 kept | 2 a signal of that id was sent before | -2 the run has ended or is ending | -3 run gone |
-- -4 no step of the run ever waits | -5 a step listens that the caller did not name: ask again | -6 too many are kept.
-- Keys after the fixed ones: the stream of each candidate's queue. Args after the fixed ones: (step, name) per candidate.
local function signal(keys, args)
  local run, audit, mail = unpack(keys, 1, 3)
  local id, workflow, name, letter, payload, most, candidates = unpack(args, 1, 7)
  local found, now = redis.call('HMGET', run, 'st', 'q', 'a', 'wa', 'to'), now_ms()
  local state = found[1]
  if not state then return -3 end
  if RUN_ENDED[state] or found[5] then return -2 end
  if not found[4] then return -4 end
  if redis.call('HEXISTS', mail, 'i:' .. letter) == 1 then return 2 end
  local known = {}
  for i = 1, tonumber(candidates) do known[args[6 + i * 2]] = { args[7 + i * 2], keys[3 + i] } end
  local left, taker = {}, nil
  for step in string.gmatch(redis.call('HGET', mail, 'l:' .. name) or '', '%S+') do
    local was = not taker and parse_record(redis.call('HGET', run, 's' .. step))
    if taker then
      left[#left + 1] = step
    elseif was and not STEP_ENDED[was.state] then
      if not known[step] then return -5 end
      taker = { step = step, was = was }
    end
  end
  if not taker and tonumber(redis.call('HGET', mail, 'early') or '0') >= tonumber(most) then return -6 end
  redis.call('HSET', mail, 'i:' .. letter, '1')
  if not taker then
    local early = redis.call('HGET', mail, 'b:' .. name)
    local letters = early and cmsgpack.unpack(early) or {}
    letters[#letters + 1] = { letter, payload }
    redis.call('HSET', mail, 'b:' .. name, cmsgpack.pack(letters))
    redis.call('HINCRBY', mail, 'early', 1)
    redis.call('HDEL', mail, 'l:' .. name)
    return 3
  end
  if #left == 0 then
    redis.call('HDEL', mail, 'l:' .. name)
  else
    redis.call('HSET', mail, 'l:' .. name, table.concat(left, ' '))
  end
  post(mail, taker.step, 'signal.' .. letter, payload)
  if taker.was.state == 'waiting' then
    local change = open_change(run, audit, now, found[2])
    change.flight = tonumber(found[3]) or 0
    wake(change, state, known[taker.step][2], { id = id, workflow = workflow, step = taker.step, name = known[taker.step][1] }, taker.was)
    write_change(change)
  end
  return 1
end
