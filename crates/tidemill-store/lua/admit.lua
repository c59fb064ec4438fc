-- Admission: a worker's one call under way. It says which places the worker holds in its tiers, reports ended calls, and asks for
-- grants; each call passes all of its tiers or takes from none.
-- Replies: generation of the rules, now (microseconds), seq accepted (0: a newer call of this worker was here before), whether it is
-- tight (1: others wait for places or for what is given back, so that ends are to be reported at once), then per
-- request (code, value, tier, why): 1 granted (value: breaker epoch; tier: 1 as a probe) | 0 ask again after value us | 2 park in the
-- line of tier | 3 put aside for value us | -1 never.
-- Keys after the fixed ones: (state, held, sums) per tier.
-- Args after the fixed ones: per tier (name, template, places held); per report (service tier or 0, outcome, latency us, epoch,
-- probe, pause us or 0, tier to pause or 0, tiers n, then n tiers, corrections n, then n of (tier, unit, delta, granted at), advertised n, then n of (tier,
-- unit, limit, remaining, reset us, window us)); per request (flags, patience us, service tier or 0, hold id, tiers n, then n tiers (negative: with a
-- ticket), amounts n, then n of (unit, amount)). Flags: 1 retry, 2 hedge.

local RETRY, HEDGE = 1, 2
-- A line that nobody confirms is taken for gone after this long.
local LINED_US = 3 * SECOND
-- What needs much at once keeps others back for so long at a time. It comes again and again; when it does not, it is gone.
local KEEPS_BACK_US = 10 * SECOND

local function has_flag(flags, flag) return math.floor(flags / flag) % 2 == 1 end

-- A place in the arguments that is read from one word to the next.
local function next_arg(call)
  local at = call.at
  call.at = at + 1
  return call.args[at]
end

local function next_number(call) return tonumber(next_arg(call)) or 0 end

local function each_limit(tier, unit, act)
  for i, rule in ipairs(tier.rules.limits) do
    if rule.unit == unit then act(i) end
  end
end

-- A pause is a floor with up to a tenth of it more, so that those who were told the same time do not come back together.
local function pause_tier(tier, long, call)
  local state = tier.state
  if state.p == -1 then return end
  long = math.min(long, DAY)
  local till = math.ceil(tier.now + long * (1 + call.dice * 0.1))
  if (state.p or 0) < till then
    if (state.p or 0) <= tier.now then
      note_service(call.changes, 'pause', tier.name, 'running', 'paused', string.format('the service asks for %d ms', long / 1000), call.who, tier.now)
    end
    state.p, state.pw = till, 'the service asked for it'
  end
end

local function report_limits(call, tiers)
  for _ = 1, next_number(call) do
    local tier, unit, delta, granted = tiers[next_number(call)], next_arg(call), next_number(call), next_number(call)
    if tier and delta ~= 0 then
      each_limit(tier, unit, function(i) reconcile_limit(tier, i, delta, granted) end)
    end
  end
  for _ = 1, next_number(call) do
    local tier, unit, limit = tiers[next_number(call)], next_arg(call), next_number(call)
    local remaining, reset, window = next_number(call), next_number(call), next_number(call)
    if tier then
      each_limit(tier, unit, function(i) advertise_limit(tier, i, limit, window) end)
      if remaining == 0 and reset > 0 then pause_tier(tier, reset, call) end
    end
  end
end

local function report(call, tiers)
  local main, outcome, latency, epoch = tiers[next_number(call)], next_arg(call), next_number(call), next_number(call)
  local probe, pause, paused, used = next_arg(call) == '1', next_number(call), tiers[next_number(call)], next_number(call)
  for _ = 1, used do
    local tier = tiers[next_number(call)]
    if tier and outcome ~= 'unsent' then
      tier.state.la = math.ceil(tier.state.la and tier.state.la + (latency - tier.state.la) * 0.1 or latency)
    end
  end
  report_limits(call, tiers)
  if pause > 0 and paused then pause_tier(paused, pause, call) end
  if not main then return end
  count(main, outcome)
  tell_budget(main, outcome)
  record_outcome(main, outcome, latency, epoch, probe, call.dice, call.changes, call.who)
  if outcome == 'throttled' then throttle_limits(main) end
end

-- The longest wait among a tier's limits, and for which.
local function wait_of_limits(tier, amounts)
  local longest, why = 0, nil
  for i, rule in ipairs(tier.rules.limits) do
    local amount = amounts[rule.unit]
    if amount and amount > 0 then
      local wait = wait_of_limit(tier, i, amount, tier.behind[i] or 0)
      if not wait then return nil, 'too_large:' .. rule.unit end
      if wait > longest then longest, why = wait, 'limit:' .. rule.unit end
    end
  end
  return longest, why
end

local function is_nearly_used(tier)
  local state = tier.state
  if (state.li or 0) > tier.now or (tier.rules.cap and state.h + 1 > tier.rules.cap * 0.8) then return true end
  for i, rule in ipairs(tier.rules.limits) do
    local _, s, most = limit_state(tier, i)
    if rule.kind == 'f' then
      if s.w == math.floor(tier.now / rule.window) and s.n > most * 0.8 then return true end
    elseif s.t > tier.now + pace_of(rule, most) or (s.s or 0) > most * 0.8 then
      return true
    end
  end
  return false
end

-- What one tier says: wait (nil: never), why, and whether the call is a probe.
local function ask_tier(call, tier, request)
  local state, now = tier.state, tier.now
  if state.p and (state.p == -1 or state.p > now) then
    return state.p == -1 and 5 * SECOND or state.p - now, 'pause'
  end
  if tier.rules.unreadable then return 5 * SECOND, 'pause' end
  local wait, probe = wait_of_breaker(tier, call.dice, call.changes, call.who)
  if wait > 0 then return wait, 'breaker' end
  if (state.hx or 0) > now and state.ho ~= request.id then return state.hx - now, state.hw end
  if tier.rules.cap and (state.h or 0) >= tier.rules.cap then return math.max(1, state.la or 100000), 'concurrency' end
  if request.hedge and (probe or is_nearly_used(tier)) then return nil, 'busy' end
  local longest, why = wait_of_limits(tier, request.amounts)
  return longest, why, probe
end

-- Those with tickets are not all to ask again in the same moment. What that makes them late the burst makes good.
local function spread(call, tier, why)
  for i, rule in ipairs(tier.rules.limits) do
    if why == 'limit:' .. rule.unit and rule.kind ~= 'f' then
      local _, _, most = limit_state(tier, i)
      local step, burst = pace_of(rule, most)
      local others = (tier.state.ca or 0) + (tier.state.cb or 0)
      return math.floor(call.dice * math.min((burst - 1) / 2, others) * step)
    end
  end
  return 0
end

-- Where a call that cannot go now waits. Who has no ticket and would wait for long goes into the line.
local function answer_wait(call, request, tier, wait, why)
  count(tier, 'waits')
  local large = false
  for i, rule in ipairs(tier.rules.limits) do
    local amount = request.amounts[rule.unit]
    if amount then
      tier.behind[i] = (tier.behind[i] or 0) + amount
      large = large or amount > rule.burst
    end
  end
  local is_limit, ticketed = string.sub(why, 1, 6) == 'limit:', request.ticketed[tier]
  -- one that needs much at once is not overtaken for ever by those that need little
  if is_limit and large and ticketed and request.id ~= '' then
    tier.state.ho, tier.state.hx, tier.state.hw = request.id, tier.now + math.min(wait, KEEPS_BACK_US) + 2 * SECOND, why
  end
  if (is_limit or ticketed) and wait <= request.patience then
    return 0, wait + (ticketed and is_limit and spread(call, tier, why) or 0), tier.index, why
  end
  tier.state.li = tier.now + LINED_US
  return 2, wait, tier.index, why
end

local function grant(request)
  for _, tier in ipairs(request.tiers) do
    for i, rule in ipairs(tier.rules.limits) do
      local amount = request.amounts[rule.unit]
      if amount and amount > 0 then charge_limit(tier, i, amount) end
    end
    if tier.rules.cap then
      tier.state.h, tier.mine, tier.stated = (tier.state.h or 0) + 1, tier.mine + 1, true
    end
    if tier.state.ho == request.id then tier.state.ho, tier.state.hx = nil, nil end
    count(tier, 'granted')
  end
  local main = request.main
  if not main then return 1, 0, 0, '' end
  if not request.hedge then charge_budget(main, request.retry) end
  if request.retry then count(main, 'retries') end
  local b = main.state.b
  if request.probe then
    b.g, b.h0 = b.g + 1, main.now
    count(main, 'probes')
  end
  return 1, b and b.e or 0, request.probe and 1 or 0, ''
end

local function decide(call, request)
  for _, tier in ipairs(request.tiers) do
    if not request.ticketed[tier] and (tier.state.li or 0) > tier.now then
      if request.hedge then return -1, 0, tier.index, 'busy' end
      return 2, 0, tier.index, 'line'
    end
  end
  if request.main and request.retry then
    local wait = wait_of_budget(request.main)
    if wait > 0 then
      count(request.main, 'over_budget')
      return 3, wait, request.main.index, 'retry_budget'
    end
  end
  local longest, binding, why = 0, nil, nil
  for _, tier in ipairs(request.tiers) do
    local wait, reason, probe = ask_tier(call, tier, request)
    if not wait then return -1, 0, tier.index, reason end
    if wait > longest then longest, binding, why = wait, tier, reason end
    if probe then request.probe = true end
  end
  if binding then
    if request.hedge then return -1, 0, binding.index, 'busy' end
    return answer_wait(call, request, binding, longest, why)
  end
  return grant(request)
end

local function read_request(call, tiers)
  local flags = next_number(call)
  local request = { retry = has_flag(flags, RETRY), hedge = has_flag(flags, HEDGE), patience = next_number(call), main = tiers[next_number(call)], id = next_arg(call),
    tiers = {}, ticketed = {}, amounts = {} }
  for _ = 1, next_number(call) do
    local index = next_number(call)
    local tier = tiers[math.abs(index)]
    if tier then
      request.tiers[#request.tiers + 1] = tier
      if index < 0 then request.ticketed[tier] = true end
    end
  end
  for _ = 1, next_number(call) do
    local unit = next_arg(call)
    request.amounts[unit] = next_number(call)
  end
  return request
end

-- A job that was called up has come to an end, or goes back into its line.
local function leave_tickets(request)
  for tier in pairs(request.ticketed) do
    local state = tier.state
    if (state.cb or 0) > 0 then state.cb = state.cb - 1 else state.ca = math.max(0, (state.ca or 0) - 1) end
  end
end

local function admit(keys, args)
  local config, changes = unpack(keys, 1, 2)
  local who, seq, dice, tier_count, reports, requests = unpack(args, 1, 6)
  local now = now_us()
  local call = { args = args, at = 7, dice = tonumber(dice), changes = changes, who = who }
  local templates, tiers, accepted = { '!generation' }, {}, 1
  for i = 1, tonumber(tier_count) do templates[i + 1] = args[call.at + (i - 1) * 3 + 1] end
  local texts = redis.call('HMGET', config, unpack(templates))
  for i = 1, tonumber(tier_count) do
    local name, _, places = next_arg(call), next_arg(call), next_number(call)
    local tier = open_tier(name, keys[i * 3], keys[i * 3 + 1], keys[i * 3 + 2], texts[i + 1], now)
    tier.index, tiers[i] = i, tier
    if not state_held(tier, who, seq, places) then accepted = 0 end
  end
  local replies = { tonumber(texts[1] or 0), now, accepted, 0 }
  if accepted == 0 then return replies end
  for _ = 1, tonumber(reports) do report(call, tiers) end
  for _ = 1, tonumber(requests) do
    local request = read_request(call, tiers)
    local code, value, tier, why = decide(call, request)
    if code ~= 0 then leave_tickets(request) end
    local n = #replies
    replies[n + 1], replies[n + 2], replies[n + 3], replies[n + 4] = code, value, tier, why
  end
  for _, tier in ipairs(tiers) do
    local cap = tier.rules.cap
    if (tier.state.li or 0) > now or (cap and (tier.state.h or 0) >= cap * 0.8) then replies[4] = 1 end
    write_held(tier, who, seq)
    close_tier(tier)
  end
  return replies
end
