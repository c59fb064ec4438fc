-- Starts runs: records them, dispatches their first steps and takes their entries off the stream of requests.
-- Replies per run: 1 started | 0 stale (somebody else has the entry) | -2 duplicate (a run of that id exists) | -6 unwanted (who asked
-- for it has cancelled it since; the entry is dropped).
-- Keys after the fixed ones: one stream per target queue, then per run (run, audit) and the sorted sets that it is entered in.
-- Args after the fixed ones: one queue name per target, then per run: entry, id, workflow, deadline_ms (a duration, 0 none), how many
-- sets it is entered in, field count, fields…, how many steps it is given with their ends, (step, name, state, queue, who, checksum,
-- output) per given step, root count, where a fan-out beyond them goes on ('' none), then (step, name, target) per root.

-- A step that another run has done: its end is this run's from the beginning.
local function give_end(change, step, name, state, queue, who, sum, output)
  local text = record(state, '0', '-', '-', change.now, who, '-', queue)
  put(change, 's' .. step, sum ~= '' and text .. ' ' .. sum or text)
  if output ~= '' then put(change, 'o' .. step, output) end
  note(change, name, 'pending', state, change.now, '0', who)
  if change.n > 1000 then
    -- Lua cannot pass many values to one command
    write_change(change)
    change.n, change.m, change.set, change.log = 0, 0, {}, {}
  end
end

local function start(keys, args)
  local requests, live, started, labelled, cancelled = unpack(keys, 1, 5)
  local group, who, targets, runs = unpack(args, 1, 4)
  targets = tonumber(targets)
  local now, replies, key, arg = now_ms(), {}, 5 + targets + 1, 4 + targets + 1
  for i = 1, tonumber(runs) do
    local run, audit = keys[key], keys[key + 1]
    local entry, id, workflow, deadline_ms, sets, fields = unpack(args, arg, arg + 5)
    local first_set, labels = key + 2, nil
    key = first_set + tonumber(sets)
    arg = arg + 6
    local first_field = arg
    arg = arg + tonumber(fields)
    local given, first_given = tonumber(args[arg]), arg + 1
    arg = first_given + given * 7
    local roots, more = tonumber(args[arg]), args[arg + 1]
    arg = arg + 2
    local exists = redis.call('EXISTS', run) == 1
    -- only what a run asks for can be cancelled before it exists
    local unwanted = string.find(id, '~', 1, true) and redis.call('ZSCORE', cancelled, id)
    if not take(requests, group, entry) then
      replies[i] = 0
    elseif exists or unwanted then
      redis.call('XDEL', requests, entry)
      -- who waits for it hears that it will not be
      if not exists then redis.call('XADD', requests, '*', 'ended', id) end
      replies[i] = exists and -2 or -6
    else
      redis.call('XDEL', requests, entry)
      local change = open_change(run, audit, now, 0)
      put(change, 'st', 'running')
      put(change, 'wf', workflow)
      put(change, 't1', now)
      for f = first_field, first_field + tonumber(fields) - 1, 2 do
        put(change, args[f], args[f + 1])
        if args[f] == 'lb' then labels = args[f + 1] end
      end
      note(change, '@', 'queued', 'running', now, '0', who)
      for g = first_given, first_given + given * 7 - 7, 7 do give_end(change, unpack(args, g, g + 6)) end
      for r = 0, roots - 1 do
        local step, name, target = unpack(args, arg + r * 3, arg + r * 3 + 2)
        target = tonumber(target)
        dispatch(change, id, workflow, step, name, keys[5 + target], args[4 + target])
      end
      if more ~= '' then
        redis.call('XADD', keys[6], '*', 'run', id .. ' ' .. workflow, 'fan', 'roots', 'from', more)
      end
      redis.call('ZADD', live, deadline_ms == '0' and '+inf' or plus(now, deadline_ms), id)
      write_change(change)
      index_run(started, labelled, id, now, labels, keys, first_set, key - 1)
      replies[i] = 1
    end
    arg = arg + roots * 3
  end
  return replies
end
