-- Starts runs: records them, dispatches their first steps and takes their entries off the stream of requests.
-- Replies per run: 1 started | 0 stale (somebody else has the entry) | -2 duplicate (a run of that id exists).
-- Keys after the fixed ones: one stream per target queue, then (run, audit) per run.
-- Args after the fixed ones: one queue name per target, then per run: entry, id, workflow, deadline_ms (a duration, 0 none),
-- field count, fields…, root count, where a fan-out beyond them goes on ('' none), then (step, name, target) per root.
local function start(keys, args)
  local requests, live = unpack(keys, 1, 2)
  local group, who, targets, runs = unpack(args, 1, 4)
  targets = tonumber(targets)
  local now, replies, key, arg = now_ms(), {}, 2 + targets + 1, 4 + targets + 1
  for i = 1, tonumber(runs) do
    local run, audit = keys[key], keys[key + 1]
    key = key + 2
    local entry, id, workflow, deadline_ms, fields = unpack(args, arg, arg + 4)
    arg = arg + 5
    local first_field = arg
    arg = arg + tonumber(fields)
    local roots, more = tonumber(args[arg]), args[arg + 1]
    arg = arg + 2
    local exists = redis.call('EXISTS', run) == 1
    if not take(requests, group, entry) then
      replies[i] = 0
    elseif exists then
      redis.call('XDEL', requests, entry)
      replies[i] = -2
    else
      redis.call('XDEL', requests, entry)
      local change = open_change(run, audit, now, 0)
      put(change, 'st', 'running')
      put(change, 'wf', workflow)
      put(change, 't1', now)
      for f = first_field, first_field + tonumber(fields) - 1, 2 do put(change, args[f], args[f + 1]) end
      note(change, '@', 'queued', 'running', now, '0', who)
      for r = 0, roots - 1 do
        local step, name, target = unpack(args, arg + r * 3, arg + r * 3 + 2)
        target = tonumber(target)
        dispatch(change, id, workflow, step, name, keys[2 + target], args[4 + target])
      end
      if more ~= '' then
        redis.call('XADD', keys[3], '*', 'run', id .. ' ' .. workflow, 'fan', 'roots', 'from', more)
      end
      redis.call('ZADD', live, deadline_ms == '0' and '+inf' or plus(now, deadline_ms), id)
      write_change(change)
      replies[i] = 1
    end
    arg = arg + roots * 3
  end
  return replies
end
