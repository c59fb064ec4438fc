-- Adds to what runs, with all that they have started, have used of their budgets. Nothing is added to a run that has ended or is gone.
-- Keys after the fixed one: the run whose budget it is, per sum. Args after the fixed one: (id of that run, steps, cost) per sum.
local function spend(keys, args)
  local live = keys[1]
  local sums = args[1]
  for i = 1, tonumber(sums) do
    local run, id, steps, cost = keys[1 + i], unpack(args, i * 3 - 1, i * 3 + 1)
    if redis.call('ZSCORE', live, id) and redis.call('EXISTS', run) == 1 then
      if steps ~= '0' then redis.call('HINCRBY', run, 'bs', steps) end
      if cost ~= '0' then redis.call('HINCRBY', run, 'bc', cost) end
    end
  end
  return 1
end
