-- Sets a service's definition, or removes it (text ''): its templates become the rules of every worker's next admission.
-- With origin `file` a definition that was changed since by hand stays unless the file itself has changed.
-- Replies: 1 changed | 0 nothing to change. Args after the fixed ones: (template, rules) per template.
local function define(keys, args)
  local definitions, config, changes = unpack(keys, 1, 3)
  local who, why, origin, name, text, templates = unpack(args, 1, 6)
  local from = redis.call('HGET', definitions, name)
  if origin == 'file' then
    if redis.call('HGET', definitions, '!file:' .. name) == text then return 0 end
    redis.call('HSET', definitions, '!file:' .. name, text)
  end
  if (from or '') == text then return 0 end
  local keep = {}
  for i = 1, tonumber(templates) do keep[args[5 + i * 2]] = args[6 + i * 2] end
  for _, template in ipairs(redis.call('HKEYS', config)) do
    if (template == name or string.sub(template, 1, #name + 1) == name .. '/') and not keep[template] then
      redis.call('HDEL', config, template)
    end
  end
  for template, rules in pairs(keep) do redis.call('HSET', config, template, rules) end
  if text == '' then redis.call('HDEL', definitions, name) else redis.call('HSET', definitions, name, text) end
  redis.call('HINCRBY', config, '!generation', 1)
  note_service(changes, text == '' and 'remove' or 'set', name, from or '-', text == '' and '-' or text, why, who, now_us())
  return 1
end
