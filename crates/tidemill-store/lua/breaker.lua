-- A service's breaker and its retry budget. The states are those of resilience4j and Polly; the budget is that of Finagle, bounded
-- as gRPC's retry throttling (proposal A6).

local BUCKETS = 10

local function breaker_of(tier)
  if not tier.rules.breaker then return nil end
  local b = tier.state.b
  if not b then
    b = { s = 'closed', o = 0, e = 0 }
    tier.state.b = b
  end
  return b
end

local function clear_window(b)
  b.i, b.c, b.f, b.l, b.h = nil, nil, nil, nil, nil
end

local function move_breaker(tier, to, why, changes, who)
  local b = tier.state.b
  local from = b.s
  b.s = to
  note_service(changes, 'breaker', tier.name, from, to, why, who, tier.now)
end

local function open_breaker(tier, why, dice, changes, who)
  local b, rule = tier.state.b, tier.rules.breaker
  b.o, b.e = b.o + 1, b.e + 1
  local long = math.min(rule.open_us * 2 ^ math.min(b.o - 1, 30), rule.max_open_us)
  b.u, b.g, b.d, b.x = math.ceil(tier.now + long * (1 + dice * 0.1)), 0, 0, 0
  clear_window(b)
  move_breaker(tier, 'open', why, changes, who)
end

-- Half-open ends when every probe has told its outcome, or had time enough to.
local function conclude_probes(tier, dice, changes, who)
  local b, rule = tier.state.b, tier.rules.breaker
  local missing = b.g > b.d and tier.now - b.h0 > rule.probe_us
  if missing then b.x, b.d = b.x + b.g - b.d, b.g end
  if b.d < rule.probes and not missing then return end
  if b.d > 0 and b.x / b.d >= rule.ratio then
    open_breaker(tier, string.format('%d of %d probes failed', b.x, b.d), dice, changes, who)
  elseif b.d >= rule.probes then
    b.o, b.e, b.z = 0, b.e + 1, tier.now
    clear_window(b)
    move_breaker(tier, 'closed', string.format('%d of %d probes succeeded', b.d - b.x, b.d), changes, who)
  end
end

-- How long the breaker holds a call back: 0 it may go, and whether as a probe.
local function wait_of_breaker(tier, dice, changes, who)
  local b = breaker_of(tier)
  if not b or b.s == 'closed' or b.s == 'disabled' then return 0, false end
  if b.s == 'forced_open' then return 5 * SECOND, false end
  if b.s == 'open' then
    if tier.now < b.u then return b.u - tier.now, false end
    b.g, b.d, b.x, b.h0 = 0, 0, 0, tier.now
    move_breaker(tier, 'half_open', 'its time is over', changes, who)
  end
  conclude_probes(tier, dice, changes, who)
  if b.s == 'closed' then return 0, false end
  if b.s == 'open' then return b.u - tier.now, false end
  if b.g < tier.rules.breaker.probes then return 0, true end
  return 250000, false
end

-- The calls, failures and slow calls of the window.
local function window_of(tier)
  local b, rule = tier.state.b, tier.rules.breaker
  if rule.kind == 'c' then
    local h = b.h or ''
    local _, failed = string.gsub(h, '[fb]', '')
    local _, slow = string.gsub(h, '[lb]', '')
    return #h, failed, slow
  end
  local calls, failed, slow = 0, 0, 0
  for k = 1, BUCKETS do
    calls, failed, slow = calls + ((b.c or {})[k] or 0), failed + ((b.f or {})[k] or 0), slow + ((b.l or {})[k] or 0)
  end
  return calls, failed, slow
end

local function none() return { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 } end

local function add_to_window(tier, failed, slow)
  local b, rule = tier.state.b, tier.rules.breaker
  if rule.kind == 'c' then
    local mark = failed and (slow and 'b' or 'f') or (slow and 'l' or 'o')
    b.h = string.sub((b.h or '') .. mark, -rule.window)
    return
  end
  local index = math.floor(tier.now / math.ceil(rule.window / BUCKETS))
  if not b.i or index - b.i >= BUCKETS or index < b.i then b.c, b.f, b.l, b.i = none(), nil, nil, index end
  for k = b.i + 1, index do
    local at = k % BUCKETS + 1
    b.c[at] = 0
    if b.f then b.f[at] = 0 end
    if b.l then b.l[at] = 0 end
  end
  b.i = index
  local at = index % BUCKETS + 1
  b.c[at] = b.c[at] + 1
  -- of a service that is well these two are never there, which makes its state half as long
  if failed then
    b.f = b.f or none()
    b.f[at] = b.f[at] + 1
  end
  if slow then
    b.l = b.l or none()
    b.l[at] = b.l[at] + 1
  end
end

-- The outcome of a call that was granted in `epoch`; what was granted before an opening tells nothing about the time after it.
local function record_outcome(tier, outcome, latency, epoch, probe, dice, changes, who)
  local b, rule = breaker_of(tier), tier.rules.breaker
  if not b or b.e ~= epoch or b.s == 'disabled' or b.s == 'forced_open' then return end
  if outcome ~= 'ok' and outcome ~= 'failed' then
    -- a probe that tells nothing gives its place to another
    if probe and b.s == 'half_open' and b.g > b.d then b.g = b.g - 1 end
    return
  end
  local failed, slow = outcome == 'failed', rule.slow_us > 0 and latency >= rule.slow_us
  if b.s == 'half_open' then
    -- one that was too late was counted then
    if probe and b.d < b.g then
      b.d = b.d + 1
      if failed or (slow and rule.slow_ratio < 1) then b.x = b.x + 1 end
      conclude_probes(tier, dice, changes, who)
    end
    return
  end
  if b.s ~= 'closed' then return end
  add_to_window(tier, failed, slow)
  if not failed and not slow then return end
  local calls, failures, slows = window_of(tier)
  if calls < rule.min_calls then return end
  if failures / calls >= rule.ratio then
    open_breaker(tier, string.format('%d of %d calls failed', failures, calls), dice, changes, who)
  elseif rule.slow_us > 0 and slows / calls >= rule.slow_ratio then
    open_breaker(tier, string.format('%d of %d calls were slow', slows, calls), dice, changes, who)
  end
end

-- The moving share of calls that fail. It halves every five seconds, so that what failed in an outage does not hold up the
-- retries after it.
local function budget_of(tier)
  local rule, r = tier.rules.budget, tier.state.r
  if not r then
    r = { t = rule.burst, a = tier.now, f = 0 }
    tier.state.r = r
  end
  local passed = math.max(0, tier.now - r.a) / SECOND
  r.t, r.a, r.f = math.min(rule.burst, r.t + passed * rule.rate), tier.now, (r.f or 0) * 0.5 ^ (passed / 5)
  return rule, r
end

local function tell_budget(tier, outcome)
  if not tier.rules.budget or (outcome ~= 'ok' and outcome ~= 'failed' and outcome ~= 'throttled') then return end
  local _, r = budget_of(tier)
  r.f = r.f + ((outcome == 'ok' and 0 or 1) - r.f) / 10
end

-- How long a retry has to wait for the budget. It binds only while the service fails.
local function wait_of_budget(tier)
  if not tier.rules.budget then return 0 end
  local rule, r = budget_of(tier)
  -- ten tenths are not quite one
  if r.f < rule.ratio or r.t >= 0.999999 then return 0 end
  local fades = math.log(r.f / math.max(rule.ratio, 0.001)) / math.log(2) * 5 * SECOND
  local refills = rule.rate > 0 and (1 - r.t) / rule.rate * SECOND or fades
  return math.min(60 * SECOND, math.ceil(math.max(1000, math.min(fades, refills))))
end

local function charge_budget(tier, is_retry)
  if not tier.rules.budget then return end
  local rule, r = budget_of(tier)
  if not is_retry then
    r.t = math.min(rule.burst, r.t + rule.ratio)
  elseif r.f >= rule.ratio then
    r.t = r.t - 1
  end
end
