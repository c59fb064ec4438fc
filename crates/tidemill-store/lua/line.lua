-- Lines: work that waits for its turn at a tier of limits, in order of score: (9 - priority) * 10^12 + virtual start. Within a
-- priority this is start-time fair queueing (Goyal, Vin, Chen 1996) with jobs of equal weight: a tenant's next job starts one
-- after its last, and never before the job that was called up last. A line's clocks stand in the hash `turns`: `v<priority>` the
-- start of the last one called up, `t<priority>:<tenant>` the next start of a tenant.

local PRIORITY_SPAN = 1000000000000

-- Whether a reply of redis.pcall is an error.
local function refused(reply)
  return type(reply) == 'table' and reply.err ~= nil
end

-- The priority that a score stands for, and its virtual start.
local function parts_of(score)
  local band = math.floor(score / PRIORITY_SPAN)
  return 9 - band, score - band * PRIORITY_SPAN
end

local function score_text(score)
  return string.format('%.0f', score)
end

-- Where a job stood in this line before: `_score` holds one score for each tier of `_ticket`.
local function kept_score(fields, tier)
  local tickets, scores = field(fields, '_ticket'), field(fields, '_score')
  if not tickets or not scores then return nil end
  local next_score = string.gmatch(scores, '%S+')
  for ticket in string.gmatch(tickets, '%S+') do
    local score = tonumber(next_score() or '')
    if ticket == tier then
      return score and score >= 0 and score < 10 * PRIORITY_SPAN and score or nil
    end
  end
  return nil
end
