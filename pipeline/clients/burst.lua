-- The burst limit of one access token, shared by all workers: never more than `limit` slots in any rolling window.
--
-- KEYS[1]  the reserved slots, a list of ascending times; slot k+limit is never nearer than a window to slot k
-- KEYS[2]  the known limit, paused_until, and of consecutive 429: pause, refusals
-- ARGV     1 operation, 2 window, 3 limit to assume, then those of the operation, last the time or ''
-- Times are whole microseconds, exact in Lua's doubles; they are written with %.0f because tostring keeps 14 digits.
local operation, window, limit = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local now = tonumber(ARGV[6])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

local function push(slot, times)
  local text = string.format('%.0f', slot)
  for _ = 1, times do redis.call('RPUSH', KEYS[1], text) end
  redis.call('LTRIM', KEYS[1], -3 * limit, -1)
  redis.call('PEXPIRE', KEYS[1], math.ceil((slot - now + 2 * window) / 1000) + 1000)
end

-- Return the number of slots at or before a moment, by bisection.
local function until_then(moment)
  local low, high = 0, redis.call('LLEN', KEYS[1])
  while low < high do
    local middle = math.floor((low + high) / 2)
    if tonumber(redis.call('LINDEX', KEYS[1], middle)) <= moment then low = middle + 1 else high = middle end
  end
  return low
end

local function remember(name, value)
  redis.call('HSET', KEYS[2], name, string.format('%.0f', value))
  redis.call('PEXPIRE', KEYS[2], 90000000)
end

if operation ~= 'observe' then limit = tonumber(redis.call('HGET', KEYS[2], 'limit') or limit) end
local paused_until = tonumber(redis.call('HGET', KEYS[2], 'paused_until') or 0)

if operation == 'reserve' then
  -- ARGV[4] longest wait: a later slot is returned, but not reserved
  local slot = math.max(now, paused_until)
  local before = redis.call('LINDEX', KEYS[1], -limit)
  if before then slot = math.max(slot, tonumber(before) + window) end
  local last = redis.call('LINDEX', KEYS[1], -1)
  if last then slot = math.max(slot, tonumber(last)) end
  if slot - now <= tonumber(ARGV[4]) then push(slot, 1) end
  return slot - now
end

if operation == 'pause' then
  -- ARGV[4] the pause
  remember('paused_until', math.max(paused_until, now + tonumber(ARGV[4])))
  return 0
end

if operation == 'refused' then
  -- ARGV[4] the requested pause, ARGV[5] how long ago the refused call was sent. As `LocalWindow.refused`.
  local requested = tonumber(ARGV[4])
  if now - tonumber(ARGV[5]) < paused_until then
    remember('paused_until', math.max(paused_until, now + requested))
    return math.max(paused_until - now, requested)
  end
  local last = tonumber(redis.call('HGET', KEYS[2], 'pause') or 0)
  if now > paused_until + math.max(last, 10000000) then redis.call('HDEL', KEYS[2], 'refusals') end
  local refusals = redis.call('HINCRBY', KEYS[2], 'refusals', 1)
  local pause = math.max(requested, math.min(300, 2 ^ math.min(refusals, 20)) * 1000000)
  remember('pause', pause)
  remember('paused_until', now + pause)
  return pause
end

if operation == 'served' then
  redis.call('HDEL', KEYS[2], 'refusals')
  return 0
end

if operation == 'paused' then
  return math.max(0, paused_until - now)
end

-- 'observe': ARGV[3] the server's limit, ARGV[4] the calls that it counted in its window, ARGV[5] the age of the oldest of them
-- at most. Calls beyond our own were sent by others with the same token: they take slots too.
remember('limit', limit)
local own = until_then(now) - until_then(now - tonumber(ARGV[5]))
local foreign = math.min(tonumber(ARGV[4]), limit) - own
if foreign > 0 then
  local last = tonumber(redis.call('LINDEX', KEYS[1], -1) or 0)
  push(math.max(now, last), foreign)
end
return 0
