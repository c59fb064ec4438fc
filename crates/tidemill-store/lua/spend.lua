-- Adds to what runs, with all that they have started, have used of their budgets. Nothing is added to a run that is gone.
-- Keys: the run that began it all, per sum. Args after the fixed one: (steps, cost) per sum.
local function spend(keys, args)
  local sums = args[1]
  for i = 1, tonumber(sums) do
    local run, steps, cost = keys[i], args[i * 2], args[i * 2 + 1]
    if redis.call('EXISTS', run) == 1 then
      if steps ~= '0' then redis.call('HINCRBY', run, 'bs', steps) end
      if cost ~= '0' then redis.call('HINCRBY', run, 'bc', cost) end
    end
  end
  return 1
end
