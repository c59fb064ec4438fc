-- Carries on a run that stands still although none of its steps is in flight: dispatches steps that have no record although
-- their needs have ended, or (with no steps named) asks again for the run's output, or for what is next at its end. Nothing happens unless the run still stands
-- where the caller saw it (`seen` is the number of its last audit record).
-- Replies: how many entries were added.
-- Keys after the fixed ones: one stream per step. Args after the fixed ones: (step, name, queue, ended, ok) per step.
local function mend(keys, args)
  local run, audit, stream = unpack(keys, 1, 3)
  local id, workflow, seen, steps = unpack(args, 1, 4)
  local found = redis.call('HMGET', run, 'st', 'q', 'to', 'a')
  if not found[1] or RUN_ENDED[found[1]] or found[2] ~= seen then return 0 end
  if steps == '0' then
    redis.call('XADD', stream, '*', 'run', id .. ' ' .. workflow, found[3] and 'close' or 'finish', '1')
    return 1
  end
  if found[3] then return 0 end
  local change, added = open_change(run, audit, now_ms(), found[2]), 0
  change.flight = tonumber(found[4])
  for i = 1, tonumber(steps) do
    local step, name, queue, ended, ok = unpack(args, i * 5, i * 5 + 4)
    if redis.call('HEXISTS', run, 's' .. step) == 0 then
      put(change, 'c' .. step, ended)
      put(change, 'k' .. step, ok)
      dispatch(change, id, workflow, step, name, keys[3 + i], queue)
      added = added + 1
    end
  end
  keep_flow(change, found[1])
  write_change(change)
  return added
end
