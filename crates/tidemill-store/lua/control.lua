-- What people do to a tier: pause (until_us 0: with no end), resume, isolate (its breaker is forced open), disable (its breaker lets
-- everything pass), close (its breaker), reset (forgets use, breaker, budget and counters; places held and a pause stay).
-- Replies: the state before | the state after.
local function word_of(tier)
  local state = tier.state
  local b = state.b and state.b.s or 'closed'
  if state.p and (state.p == -1 or state.p > tier.now) then return 'paused' end
  return b == 'closed' and 'running' or b
end

local ACTIONS = {
  pause = function(tier, till, why) tier.state.p, tier.state.pw = till, why end,
  resume = function(tier)
    tier.state.p, tier.state.pw = nil, nil
    local b = tier.state.b
    if b and (b.s == 'forced_open' or b.s == 'disabled') then b.s, b.o, b.e = 'closed', 0, b.e + 1 end
  end,
  isolate = function(tier)
    local b = tier.state.b or { o = 0, e = 0 }
    tier.state.b, b.s, b.e = b, 'forced_open', b.e + 1
  end,
  disable = function(tier)
    local b = tier.state.b or { o = 0, e = 0 }
    tier.state.b, b.s, b.e = b, 'disabled', b.e + 1
  end,
  close = function(tier)
    local b = tier.state.b or { o = 0, e = 0 }
    tier.state.b, b.s, b.o, b.e = b, 'closed', 0, b.e + 1
    clear_window(b)
  end,
  reset = function(tier)
    local e = tier.state.b and tier.state.b.e or 0
    local was = tier.state
    tier.state = { l = {}, n = {}, h = was.h, hs = was.hs, li = was.li, p = was.p, pw = was.pw, b = { s = 'closed', o = 0, e = e + 1 } }
    redis.call('DEL', tier.sums_key)
  end,
}

local function control(keys, args)
  local changes, state_key, held_key, sums_key = unpack(keys, 1, 4)
  local who, why, action, name, until_us = unpack(args, 1, 5)
  local now = now_us()
  local tier = open_tier(name, state_key, held_key, sums_key, '', now)
  local from = word_of(tier)
  if not ACTIONS[action] then return { from, 'unknown_action' } end
  ACTIONS[action](tier, until_us == '0' and -1 or tonumber(until_us), why)
  close_tier(tier)
  local to = word_of(tier)
  note_service(changes, action, name, from, to, why, who, now)
  return { from, to }
end
