-- A tier: one scope with limits. Its rules are the compiled text of its template, its state one MessagePack map. All times are whole
-- microseconds of Redis's clock. Whatever a call changes is kept in memory and written once, at its end.

local SECOND = 1000000
-- How long a worker's places count without being renewed, and how long after that they still stand: a jump of the clock makes
-- everybody look dead at once, and the living renew within a second.
local HOLDER_US, SUSPECT_US = 3 * SECOND, 2 * SECOND
-- A tier that nobody uses is forgotten after a day.
local TIER_KEPT_MS = 86400000
-- The longest that a service can have itself paused.
local DAY = 86400 * SECOND

local function now_us()
  local time = redis.call('TIME')
  return time[1] * SECOND + time[2]
end

-- Rules by text: parsing is done once, not once a call.
local RULES, RULES_HELD = {}, 0

local RULE_READERS = {
  c = function(rules, word) rules.cap = tonumber(word[1]) end,
  d = function(rules, word)
    local unit, kind, limit, window = word[1], word[2], tonumber(word[3]), tonumber(word[4])
    local slack, whole_units = tonumber(word[6]), unit == 'requests'
    rules.limits[#rules.limits + 1] = { unit = unit, kind = kind, limit = limit, window = window, burst = tonumber(word[5]), slack = slack,
      auto = word[7] == '1', initial = tonumber(word[8]), max = tonumber(word[9]), whole = whole_units, summed = kind == 's',
      slot = math.ceil((window + slack) / 512), slots = math.ceil((window + slack) / math.ceil((window + slack) / 512)), sign = unit .. kind .. word[4] }
    rules.longest, rules.summed = math.max(rules.longest, window), rules.summed or kind == 's'
  end,
  b = function(rules, word)
    rules.breaker = { kind = word[1], window = tonumber(word[2]), min_calls = tonumber(word[3]), ratio = tonumber(word[4]),
      slow_us = tonumber(word[5]), slow_ratio = tonumber(word[6]), open_us = tonumber(word[7]), max_open_us = tonumber(word[8]),
      probes = tonumber(word[9]), probe_us = tonumber(word[10]) }
  end,
  r = function(rules, word) rules.budget = { ratio = tonumber(word[1]), rate = tonumber(word[2]), burst = tonumber(word[3]) } end,
}

local function rules_of(text)
  local rules = RULES[text]
  if rules then return rules end
  rules = { limits = {}, longest = 0 }
  for kind, rest in string.gmatch(text, '(%l)=(%S+)') do
    local words = {}
    for word in string.gmatch(rest, '[^,]+') do words[#words + 1] = word end
    -- rules that other hands wrote, and nobody can read, stop their own tier and no other
    if RULE_READERS[kind] and not pcall(RULE_READERS[kind], rules, words) then return { limits = {}, longest = 0, unreadable = true } end
  end
  if RULES_HELD >= 1000 then RULES, RULES_HELD = {}, 0 end
  RULES[text], RULES_HELD = rules, RULES_HELD + 1
  return rules
end

-- Redis's clock went back: what was so long ahead stays so long ahead.
local function shift_back(state, by)
  for _, name in ipairs({ 'p', 'hx', 'li', 'cx', 'hs' }) do
    if state[name] and state[name] > 0 then state[name] = state[name] - by end
  end
  for _, s in pairs(state.l) do
    for _, name in ipairs({ 't', 'x', 'b', 'd' }) do
      if s[name] then s[name] = math.max(0, s[name] - by) end
    end
  end
  local b = state.b
  if b then b.u, b.h0, b.z = b.u and b.u - by, b.h0 and b.h0 - by, b.z and b.z - by end
end

-- A key that holds something else begins anew: it must not stop all services of those who ask.
local function own_hash(key)
  if refused(redis.pcall('HLEN', key)) then redis.call('DEL', key) end
end

local function state_of(state_key)
  local packed = redis.pcall('GET', state_key)
  local known, state = false, nil
  if type(packed) == 'string' then known, state = pcall(cmsgpack.unpack, packed) end
  if not known or type(state) ~= 'table' or type(state.l) ~= 'table' or type(state.n) ~= 'table' then return { l = {}, n = {} } end
  return state
end

-- A limit keeps what was used of it when others come or go before it in the definition.
local function align_limits(state, rules)
  -- whoever pauses a tier does not know its rules
  if #rules.limits == 0 then return end
  local fits = true
  for i, s in pairs(state.l) do
    local rule = rules.limits[i]
    fits = fits and type(s) == 'table' and s.j and rule and s.k == rule.sign
  end
  if fits then return end
  local known, aligned = {}, {}
  for _, s in pairs(state.l) do
    if type(s) == 'table' and s.j and s.k then known[s.k] = known[s.k] or s end
  end
  for i, rule in ipairs(rules.limits) do
    aligned[i], known[rule.sign] = known[rule.sign], nil
  end
  state.l = aligned
end

-- A number that no limit of the tier has its slots under.
local function free_number(state)
  local taken, number = {}, 1
  for _, s in pairs(state.l) do taken[s.j] = true end
  while taken[number] do number = number + 1 end
  return number
end

-- Opens a tier; a template that is gone has no rules, and a state that cannot be read begins anew.
local function open_tier(name, state_key, held_key, sums_key, text, now)
  local state, rules = state_of(state_key), rules_of(text or '')
  -- before anything is written
  if rules.cap then own_hash(held_key) end
  if rules.summed then own_hash(sums_key) end
  align_limits(state, rules)
  if state.at and now < state.at - SECOND then shift_back(state, state.at - now) end
  state.at = now
  return { name = name, state_key = state_key, held_key = held_key, sums_key = sums_key, rules = rules, has_rules = text, state = state,
    now = now, behind = {}, mine = 0 }
end

local function close_tier(tier)
  local state, kept = tier.state, math.max(TIER_KEPT_MS, math.ceil(tier.rules.longest / 500))
  if (state.p or 0) > tier.now then kept = math.min(kept + math.ceil((state.p - tier.now) / 1000), LONGEST_MS) end
  -- what was set by hand stays until it is unset by hand
  if state.p == -1 or (state.b and (state.b.s == 'forced_open' or state.b.s == 'disabled')) then
    redis.call('SET', tier.state_key, cmsgpack.pack(state))
  else
    redis.call('SET', tier.state_key, cmsgpack.pack(state), 'PX', string.format('%d', kept))
  end
end

local function count(tier, what, by)
  local n = tier.state.n
  n[what] = (n[what] or 0) + (by or 1)
end

-- Places under the cap that were not renewed for long come back. Twice seen, since a clock may jump.
local function sweep_holders(tier)
  local state, now = tier.state, tier.now
  if state.hs and now - state.hs < SECOND and now >= state.hs then return end
  state.hs = now
  local holders, held = redis.call('HGETALL', tier.held_key), 0
  for i = 1, #holders, 2 do
    local places, expires = string.match(holders[i + 1], '^(%d+) (%-?%d+)')
    places, expires = tonumber(places) or 0, tonumber(expires) or 0
    if expires < 0 and -expires < now then
      redis.call('HDEL', tier.held_key, holders[i])
      places = 0
    elseif (expires >= 0 and expires < now) or math.abs(expires) > now + HOLDER_US then
      -- not renewed for long, or as a clock said that has stepped back since
      redis.call('HSET', tier.held_key, holders[i], string.format('%d %.0f 0', places, -(now + SUSPECT_US)))
    end
    held = held + places
  end
  state.h = held
end

-- What a worker says that it holds replaces what was known of it. False when a newer call of it was here before.
local function state_held(tier, who, seq, places)
  if not tier.rules.cap then return true end
  sweep_holders(tier)
  local was, _, last = string.match(redis.call('HGET', tier.held_key, who) or '0 0 0', '^(%d+) (%-?%d+) (%d+)')
  if tonumber(last or 0) > tonumber(seq) then return false end
  tier.state.h = math.max((tier.state.h or 0) - tonumber(was or 0), 0) + places
  tier.mine, tier.stated, tier.was = places, true, tonumber(was or 0)
  return true
end

local function write_held(tier, who, seq)
  if not tier.rules.cap or not tier.stated then return end
  if tier.mine == 0 then
    if tier.was > 0 then redis.call('HDEL', tier.held_key, who) end
  else
    redis.call('HSET', tier.held_key, who, string.format('%d %.0f %s', tier.mine, tier.now + HOLDER_US, seq))
    redis.call('PEXPIRE', tier.held_key, '86400000')
  end
end

-- What happened to a service, for people and for the audit.
local function note_service(changes, kind, name, from, to, why, who, now)
  redis.pcall('XADD', changes, 'MAXLEN', '~', '10000', '*', 'kind', kind, 'service', name, 'from', from, 'to', to, 'why', why,
    'by', who, 'at_ms', string.format('%.0f', math.floor(now / 1000)))
end
