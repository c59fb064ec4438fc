-- How many calls of each tier could be granted until the horizon, for whoever calls jobs up from lines: what it is told is reserved
-- for the tickets that it gives out, so that two do not call up the same. With `reserve` 0 it only looks.
-- Replies per tier: allowance, blocked for us (0: not), why, calls per 1000 s (0: unknown), in use, lined.
-- Keys after the fixed one: (state, held, sums) per tier.
-- Args after the fixed ones: per tier (name, exact template, template with a star, jobs waiting in lines, allowance not used).

local MOST_CALLED = 1000

-- Calls that the limits of a tier would let go until the horizon, and how many in a second.
local function outlook_of_limits(tier, horizon)
  local most_calls, rate, why = math.huge, math.huge, ''
  for i, rule in ipairs(tier.rules.limits) do
    local _, s, most = limit_state(tier, i)
    local each, calls, per_second = s.m or 1, nil, nil
    if not rule.whole and not s.m then each = math.min(rule.burst, most) end
    each = math.max(each, 0.000001)
    if rule.kind == 'f' then
      local number, ahead = math.floor(tier.now / rule.window), math.floor((tier.now + horizon) / rule.window)
      calls = (most - (s.w == number and s.n or 0)) / each
      if ahead > number then calls = calls + most / each end
      per_second = most / each / rule.window * SECOND
    else
      local step, burst = pace_of(rule, most)
      local one = each * step
      calls = (tier.now + horizon + burst * step - math.max(s.t, tier.now)) / one
      per_second = SECOND / one
      if rule.summed then
        slide(tier, i, rule, s)
        calls = math.min(calls, (most - s.s + most * horizon / rule.window) / each)
      end
      -- one that takes more than the burst, or was guessed to, goes when nothing is owed
      if calls < 1 and s.t <= tier.now + horizon and (not rule.summed or s.s < most / 2) then calls = 1 end
    end
    if calls < most_calls then most_calls, why = calls, 'limit:' .. rule.unit end
    rate = math.min(rate, per_second)
  end
  return most_calls, rate, why
end

local function outlook_of_cap(tier, horizon)
  local cap = tier.rules.cap
  if not cap then return math.huge, math.huge end
  sweep_holders(tier)
  local free, latency = cap - (tier.state.h or 0), tier.state.la
  -- how long calls take is not known before one has ended
  if not latency then return free, math.huge end
  -- those that end until then make room for others
  latency = math.max(latency, 100)
  return free + math.min(cap, math.floor(cap * horizon / latency)), cap / latency * SECOND
end

-- After an outage not all that waits comes at once.
local function outlook_of_breaker(tier)
  local b, rule = tier.state.b, tier.rules.breaker
  if not b or not rule or b.s == 'disabled' then return math.huge end
  if b.s == 'forced_open' then return 0, 5 * SECOND end
  if b.s == 'open' and tier.now < b.u then return 0, b.u - tier.now end
  if b.s ~= 'closed' then
    -- whose probes are overdue is found out by the next that asks, and all without a ticket wait in line
    if b.s == 'half_open' and b.g > b.d and tier.now - b.h0 > rule.probe_us then return 1 end
    return math.max(0, rule.probes - (b.s == 'open' and 0 or b.g)), 0
  end
  if b.z and tier.now - b.z < rule.open_us then
    return math.floor(rule.probes * 2 ^ (8 * (tier.now - b.z) / rule.open_us)) + 1
  end
  return math.huge
end

local function outlook(tier, horizon)
  local state, now = tier.state, tier.now
  -- its definition was removed: nothing that was done to it by hand holds any more, and nobody would take it back
  if not tier.has_rules then return math.huge, 0, '', 0 end
  if state.p and (state.p == -1 or state.p > now) then return 0, state.p == -1 and 5 * SECOND or state.p - now, 'pause', 0 end
  local calls, blocked = outlook_of_breaker(tier)
  if calls == 0 then return 0, blocked, 'breaker', 0 end
  local by_limits, rate, why = outlook_of_limits(tier, horizon)
  local by_cap, cap_rate = outlook_of_cap(tier, horizon)
  if by_cap < by_limits then why = 'concurrency' end
  calls = math.min(calls, by_limits, by_cap)
  if (state.hx or 0) > now then calls = math.min(calls, 1) end
  rate = math.min(rate, cap_rate)
  return math.max(0, calls), 0, why, rate == math.huge and 0 or rate
end

-- Tickets that were given out: `ca` lately, `cb` before that. What has not come back after two to four seconds was lost with its
-- worker, or was cancelled.
local function count_tickets(state, now)
  state.ca, state.cb = state.ca or 0, state.cb or 0
  if now < (state.cx or 0) then return end
  state.cb = now < (state.cx or 0) + 2 * SECOND and state.ca or 0
  state.ca, state.cx = 0, now + 2 * SECOND
end

local function forecast_tier(tier, horizon, waiting, unused, reserve)
  local state, now = tier.state, tier.now
  count_tickets(state, now)
  state.ca = math.max(0, state.ca - unused)
  local calls, blocked, why, rate = outlook(tier, horizon)
  local allowance = math.max(0, math.min(MOST_CALLED, math.floor(calls - state.ca - state.cb)))
  if reserve then
    allowance = math.min(allowance, waiting)
    state.ca = state.ca + allowance
    state.li = waiting > 0 and now + LINED_US or nil
  end
  close_tier(tier)
  return allowance, math.ceil(blocked), why, math.floor(rate * 1000)
end

local function forecast(keys, args)
  local config = keys[1]
  local reserve, horizon_us, tiers = unpack(args, 1, 3)
  local now, templates, replies = now_us(), {}, {}
  for i = 1, tonumber(tiers) do
    templates[i * 2 - 1], templates[i * 2] = args[i * 5], args[i * 5 + 1]
  end
  if #templates == 0 then return replies end
  local texts = redis.call('HMGET', config, unpack(templates))
  for i = 1, tonumber(tiers) do
    local name, _, _, waiting, unused = unpack(args, i * 5 - 1, i * 5 + 3)
    local tier = open_tier(name, keys[i * 3 - 1], keys[i * 3], keys[i * 3 + 1], texts[i * 2 - 1] or texts[i * 2], now)
    local n = #replies
    replies[n + 1], replies[n + 2], replies[n + 3], replies[n + 4] =
      forecast_tier(tier, tonumber(horizon_us), tonumber(waiting), tonumber(unused), reserve == '1')
    replies[n + 5], replies[n + 6] = tier.state.h or 0, (tier.state.li or 0) > now and 1 or 0
  end
  return replies
end
