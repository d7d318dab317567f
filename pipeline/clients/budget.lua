-- The tokens that one company has spent today, shared by all workers of all its connectors.
--
-- KEYS[1]  a hash: day, spent, closed_until, probe_at; that of another day is deleted
-- ARGV     1 operation, 2 tokens or seconds, 3 the most that may be spent in total or '', 4 the ledger's sum or '', 5 the time or ''
-- Answers {word, seconds}. Times are seconds since 1970; the day is that of UTC.
local DAY, ANSWER_S = 86400, 60
local operation, amount = ARGV[1], tonumber(ARGV[2])
local now = tonumber(ARGV[5])
if not now then
  local time = redis.call('TIME')
  now = time[1] + time[2] / 1000000
end
local day = math.floor(now / DAY)
local reset = (day + 1) * DAY

local function kept(name) return tonumber(redis.call('HGET', KEYS[1], name) or nil) end
local function keep(name, value) redis.call('HSET', KEYS[1], name, string.format('%.3f', value)) end
local function answer(word, seconds) return {word, string.format('%.3f', seconds)} end

if kept('day') ~= day then
  redis.call('DEL', KEYS[1])
  keep('day', day)
end
redis.call('EXPIRE', KEYS[1], 2 * DAY)

if operation == 'take' then
  local spent = kept('spent')
  if not spent then
    spent = tonumber(ARGV[4])
    if not spent then return answer('unknown', 0) end
    redis.call('HSET', KEYS[1], 'spent', string.format('%.0f', spent))
  end
  local ceiling = tonumber(ARGV[3])
  if ceiling and spent + amount > ceiling then return answer('kept', reset - now) end
  local closed_until, word = kept('closed_until'), 'go'
  if closed_until and closed_until > now then
    local probe_at = kept('probe_at')
    if now < probe_at then return answer('closed', math.min(probe_at, closed_until) - now) end
    keep('probe_at', now + ANSWER_S)
    word = 'probe'
  end
  redis.call('HINCRBY', KEYS[1], 'spent', string.format('%.0f', amount))
  return answer(word, 0)
end

if operation == 'give_back' then
  if kept('spent') then redis.call('HINCRBY', KEYS[1], 'spent', string.format('%.0f', -amount)) end
  return answer('go', 0)
end

if operation == 'correct' then
  -- ARGV[2] the spent tokens by Pipedrive's headers, without the calls in flight
  redis.call('HSET', KEYS[1], 'spent', string.format('%.0f', amount))
  return answer('go', 0)
end

if operation == 'close' then
  keep('closed_until', reset)
  keep('probe_at', now + amount)
  return answer('closed', reset - now)
end

if operation == 'open' then
  redis.call('HDEL', KEYS[1], 'closed_until', 'probe_at')
  return answer('go', 0)
end

-- 'look'
local probe_at = kept('probe_at')
if probe_at then return answer('closed', math.max(0, math.min(probe_at, reset) - now)) end
return answer('go', 0)
