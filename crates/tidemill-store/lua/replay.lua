-- Puts a dead letter's job back: a new entry with the original fields, and the letter is gone.
-- Replies: the new entry's id | '' when the letter is not there (any more).
local function replay(keys, args)
  local dead, target = unpack(keys)
  local letter = args[1]
  if redis.call('XDEL', dead, letter) == 0 then return '' end
  return redis.call('XADD', target, '*', unpack(args, 2))
end
