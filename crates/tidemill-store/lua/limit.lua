-- The limits of a tier: GCRA (ITU-T I.371 annex A, ATM Forum TM 4.0) with burst b spreads calls; a strict limit has a sum over 512
-- slots of its window beside it, which no call may take beyond the limit, whatever was given back or came late; fixed windows as some
-- providers count. The same arithmetic, in Rust, is in tidemill-policy, and a test compares the two.

-- What is in force now: the configured limit, the one found by trying (AIMD), or a lower one that the service told.
local function limit_now(rule, s, now)
  local most = rule.auto and (s.a or rule.initial) or rule.limit
  if s.x and s.x > now and s.v < most then return s.v end
  return most
end

local AUTO_BURST = { s = 50, a = 10, b = 1, f = 1 }

-- The time of one unit, the burst, and the same as so many units in a period. What comes one by one has a step of whole
-- microseconds, so that a burst of it fits exactly.
local function pace_of(rule, most)
  local period, units, burst = rule.window, most, rule.burst
  -- that of a limit that is looked for grows with it
  if rule.auto then burst = math.max(burst, math.floor(most / AUTO_BURST[rule.kind])) end
  if rule.whole then period, units = math.ceil(period / units), 1 end
  return period / units, math.min(burst, most), period, units
end

-- Under another limit what is owed stays owed, in units.
local function relimit(rule, s, most, now)
  if s.e and rule.kind ~= 'f' and s.t > now then
    local _, _, period, units = pace_of(rule, s.e)
    local _, _, new_period, new_units = pace_of(rule, most)
    s.t = now + math.ceil((s.t - now) * new_period * units / (period * new_units))
  end
  s.e = most
end

-- An unknown limit is looked for: more by and by while it is used, less at once when the service objects (Chiu and Jain, 1989).
local function find(rule, s, now)
  s.a, s.b, s.u = s.a or rule.initial, s.b or now, s.u or 0
  local passed = now - s.b
  if passed < SECOND then return end
  if 10 * s.u * rule.window >= 8 * s.a * math.min(passed, 10 * SECOND) then
    s.a = math.min(rule.max, s.a + math.max(1, math.floor(s.a / (s.d and 50 or 4))))
  end
  s.b, s.u = now, 0
end

local function limit_state(tier, i)
  local rule, s = tier.rules.limits[i], tier.state.l[i]
  if not s or s.k ~= rule.sign then
    s = { k = rule.sign, t = 0, j = free_number(tier.state) }
    tier.state.l[i] = s
  end
  if rule.auto then find(rule, s, tier.now) end
  local most = limit_now(rule, s, tier.now)
  if most ~= s.e then relimit(rule, s, most, tier.now) end
  return rule, s, most
end

-- The sum forgets slots that have left the window. A clock that steps back a little changes nothing; one that steps back by more than
-- the window, or slots of another width, begin anew.
local function slide(tier, i, rule, s)
  local slot = math.floor(tier.now / rule.slot)
  if s.c and slot <= s.c and slot >= s.c - rule.slots then return end
  if not s.c then
    -- slots that were left by other rules are not ours
    local left = {}
    for k = 0, rule.slots do left[k + 1] = s.j .. ':' .. string.format('%d', slot - k) end
    redis.call('HDEL', tier.sums_key, unpack(left))
    s.c, s.q, s.s = slot, 0, 0
    return
  end
  if s.q and s.q ~= 0 then redis.call('HSET', tier.sums_key, s.j .. ':' .. whole(s.c), string.format('%.6f', s.q)) end
  local gone, n = {}, 0
  for k = s.c - rule.slots, slot < s.c and s.c or math.min(slot - rule.slots - 1, s.c) do
    n = n + 1
    gone[n] = s.j .. ':' .. string.format('%d', k)
  end
  if n > 0 then
    local found = redis.call('HMGET', tier.sums_key, unpack(gone))
    for k = 1, n do
      if found[k] then s.s = s.s - tonumber(found[k]) end
    end
    redis.call('HDEL', tier.sums_key, unpack(gone))
  end
  if slot < s.c or slot - s.c > rule.slots or s.s < 0.000001 then s.s = 0 end
  s.c, s.q = slot, 0
  redis.call('PEXPIRE', tier.sums_key, string.format('%d', math.ceil(rule.window / 500) + 60000))
end

-- How long until so much has left the sum that `amount` fits.
local function wait_of_sum(tier, i, rule, s, most, amount)
  slide(tier, i, rule, s)
  local over = s.s + amount - most
  if over <= 0.0000001 then return 0 end
  -- the oldest slots, some at a time: mostly the first few are enough
  for from = 0, rule.slots - 1, 16 do
    local names = {}
    for k = 0, 15 do names[k + 1] = s.j .. ':' .. string.format('%d', s.c - rule.slots + from + k) end
    local found = redis.call('HMGET', tier.sums_key, unpack(names))
    for k = 0, 15 do
      over = over - (tonumber(found[k + 1] or 0) or 0)
      if over <= 0.0000001 then return (s.c + from + k + 1) * rule.slot - tier.now end
    end
  end
  return (s.c + rule.slots + 1) * rule.slot - tier.now
end

-- How long until `amount` conforms: 0 at once, nil never. `behind` is what waits before it.
local function wait_of_limit(tier, i, amount, behind)
  local rule, s, most = limit_state(tier, i)
  local now = tier.now
  if amount > (rule.auto and rule.max or rule.limit) then return nil end
  if amount > most then return SECOND end
  if rule.kind == 'f' then
    local number = math.floor(now / rule.window)
    local used = s.w == number and s.n or 0
    if used + amount + behind <= most then return 0 end
    return (number + 1) * rule.window - now
  end
  local _, burst, period, units = pace_of(rule, most)
  -- whole numbers near now: a float of the size of a Unix time in microseconds has no room for parts of one
  local wait = math.max(0, s.t - now - math.floor((burst - math.min(amount, burst) - behind) * period / units))
  if rule.summed then return math.max(wait, wait_of_sum(tier, i, rule, s, most, amount + behind)) end
  return wait
end

local function charge_limit(tier, i, amount)
  local rule, s, most = limit_state(tier, i)
  local now = tier.now
  if rule.auto then s.u = (s.u or 0) + amount end
  if not rule.whole then s.m = s.m and s.m + (amount - s.m) * 0.1 or amount end
  if rule.kind == 'f' then
    local number = math.floor(now / rule.window)
    if s.w ~= number then s.w, s.n = number, 0 end
    s.n = s.n + amount
    return
  end
  local _, _, period, units = pace_of(rule, most)
  -- more than the burst counts in full: what follows waits the longer
  s.t = math.max(s.t, now) + math.ceil(amount * period / units)
  if rule.summed then
    slide(tier, i, rule, s)
    s.s, s.q = s.s + amount, s.q + amount
  end
end

-- A slot of the past, or the present one, is corrected. Replies by how much.
local function correct_slot(tier, i, rule, s, delta, granted)
  slide(tier, i, rule, s)
  local slot = math.floor(granted / rule.slot)
  -- more than was reserved counts from now on
  if delta > 0 or slot >= s.c then
    s.q = s.q + delta
    return delta
  end
  if slot < s.c - rule.slots then return 0 end
  local name = s.j .. ':' .. string.format('%d', slot)
  local left = math.max(0, (tonumber(redis.call('HGET', tier.sums_key, name) or 0) or 0))
  local less = math.max(delta, -left)
  redis.call('HSET', tier.sums_key, name, string.format('%.6f', left + less))
  return less
end

-- What was really used, less what was reserved. Many times more than the limit is not believed: it would stop the tier for good.
local function reconcile_limit(tier, i, delta, granted)
  local rule, s, most = limit_state(tier, i)
  delta = math.min(delta, math.max(1000, 10 * rule.limit))
  if rule.kind == 'f' then
    if delta > 0 or s.w == math.floor(granted / rule.window) then
      if s.w ~= math.floor(tier.now / rule.window) then s.w, s.n = math.floor(tier.now / rule.window), 0 end
      s.n = math.max(0, s.n + delta)
    end
    return
  end
  local _, _, period, units = pace_of(rule, most)
  if delta > 0 then
    s.t = math.max(s.t, tier.now) + math.ceil(delta * period / units)
  else
    s.t = math.max(s.t - math.floor(-delta * period / units), math.min(s.t, tier.now))
  end
  if rule.summed then
    -- first, since it lets the sum slide
    local change = correct_slot(tier, i, rule, s, delta, granted)
    s.s = math.max(0, s.s + change)
  end
end

-- What the service says of its own limit. Its window may be unknown (0).
local function advertise_limit(tier, i, limit, window)
  local rule, s = limit_state(tier, i)
  if limit < 1 or (window > 0 and window ~= rule.window) then return end
  s.v, s.x = math.floor(limit), tier.now + 60 * SECOND
end

local function throttle_limits(tier)
  for i, rule in ipairs(tier.rules.limits) do
    if rule.auto then
      local _, s = limit_state(tier, i)
      if tier.now - (s.d or 0) >= SECOND then s.a, s.d = math.max(1, math.floor(s.a * 7 / 10)), tier.now end
    end
  end
end
