-- The pool's execution mode: how the runs that start from now on are carried out. It is switched by who sees it as it stands:
-- `seen` is the number of switches so far, or '' for whoever takes what he finds. `kind` is `switch`; `rollback`, back to the mode
-- before (`to` is ''); or `settings`, which counts only where the settings have changed since they last said something.
-- Replies: code, the mode before, the mode now, the number of switches; codes: 1 switched | 2 it was so already |
-- 0 somebody else has switched it meanwhile | -1 there is no mode before.
local function switch_mode(keys, args)
  local mode, changes = unpack(keys, 1, 2)
  local who, why, kind, to, seen = unpack(args, 1, 5)
  local known = redis.call('HMGET', mode, 'mode', 'version', 'before', 'settings')
  local from, version = known[1] or 'hybrid', tonumber(known[2]) or 0
  if kind == 'settings' and known[4] == to then return { 2, from, from, version } end
  if seen ~= '' and tonumber(seen) ~= version then return { 0, from, from, version } end
  if kind == 'rollback' then
    if not known[3] then return { -1, from, from, version } end
    to = known[3]
  end
  if from == to then
    if kind == 'settings' then redis.call('HSET', mode, 'settings', to) end
    return { 2, from, from, version }
  end
  local now = now_ms()
  version = version + 1
  -- first: a key of another type stops the call here, before the mode is written
  redis.call('XADD', changes, 'MAXLEN', '~', '10000', '*', 'kind', kind, 'from', from, 'to', to, 'why', why, 'by', who,
    'version', whole(version), 'at_ms', now)
  redis.call('HSET', mode, 'mode', to, 'before', from, 'version', whole(version), 'why', why, 'by', who, 'at_ms', now)
  if kind == 'settings' then redis.call('HSET', mode, 'settings', to) end
  return { 1, from, to, version }
end
