-- Begins a `for_each`: its inputs stand in `items` already (written by the caller, who owns the step's entry); dispatches the
-- first ones, as many as may run at once.
-- Replies: 1 expanded | 0 stale | -1 conflict | -2 the run has ended or is ending (nothing was done, the entry is still the caller's) |
-- -3 run gone.
local function expand(keys, args)
  local stream, run, audit, items, target = unpack(keys)
  local group, who, entry, id, workflow, step, name, attempt, total, first, queue, keep_ms = unpack(args)
  local found, now = redis.call('HMGET', run, 'st', 'q', 's' .. step, 'to'), now_ms()
  local was = parse_record(found[3])
  if found[1] and (RUN_ENDED[found[1]] or found[4]) then return -2 end
  if not take(stream, group, entry) then return 0 end
  redis.call('XDEL', stream, entry)
  if not found[1] then return -3 end
  if not was or was.entry ~= entry or was.state ~= 'ready' then return -1 end
  local change = open_change(run, audit, now, found[2])
  note(change, name, 'ready', 'running', now, attempt, who)
  put(change, 's' .. step, record('running', attempt, was.ready, now, '-', who, '-', base(was.queue)))
  put(change, 'n' .. step, total)
  put(change, 'u' .. step, first)
  put(change, 'g' .. step, 0)
  put(change, 'h' .. step, 0)
  local records = {}
  for i = 0, tonumber(first) - 1 do
    local own = redis.call('XADD', target, '*', 'run', id .. ' ' .. workflow .. ' ' .. step .. ' ' .. i)
    records[#records + 1] = 's' .. i
    records[#records + 1] = record('ready', '1', now, '-', '-', '-', own, queue)
    note(change, name .. '[' .. i .. ']', 'pending', 'ready', now, '1', '-')
  end
  if #records > 0 then redis.call('HSET', items, unpack(records)) end
  redis.call('PEXPIRE', items, bounded(keep_ms))
  write_change(change)
  return 1
end
