#!lua flags=allow-oom
-- Take usages out of the bucket of a credential or a tenant, or return some.
--
-- KEYS  the bucket
-- ARGV  1 rate: usages per second  2 burst: what a full bucket has
--       3 owed: usages that were allowed before this call, charged also to an empty bucket
--       4 requested: usages to allow later, as many as there are; negative: returned
--       5 batch: usages of one batch, all or none
--
-- Returns how many of `requested` were taken, 1 if the batch was, and the level. They are text,
-- because Redis cuts a number to an integer. The value is `<level> <time in ms> <all ever taken>`.
--
-- A missing key is a full bucket, so a key expires some seconds after its bucket is full. A server's
-- clock that steps forward can fill a bucket once. Half of a full bucket is enough for a batch: the
-- processes hold some of the rest. A larger batch leaves the bucket in debt, which must be paid
-- before anything else is allowed. If nothing was taken, nothing is written, unless the clock went
-- back: the bucket must fill from the new time.
local EXPIRY_MARGIN_MS, MAX_TTL_MS = 10000, 2678400000
local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local owed, requested, batch = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local level, updated_at, taken = burst, now, 0
local bucket = redis.call('GET', KEYS[1])
if bucket then
  local fields = {string.match(bucket, '^(%S+) (%S+) (%S+)$')}
  level, updated_at, taken = tonumber(fields[1]), tonumber(fields[2]), tonumber(fields[3])
  level = math.min(burst, level + math.max(0, now - updated_at) / 1000 * rate)
end

level = level - owed
local granted = requested
if requested > 0 then
  granted = math.max(0, math.min(requested, math.floor(level)))
end
level = math.min(burst, level - granted)
local is_batch_granted = batch > 0 and level >= math.min(batch, burst / 2)
if is_batch_granted then
  level = level - batch
else
  batch = 0
end
local used = owed + granted + batch
if used ~= 0 or now < updated_at then
  local ttl = math.min(MAX_TTL_MS, (burst - level) / rate * 1000 + EXPIRY_MARGIN_MS)
  bucket = string.format('%.6f %.0f %.0f', level, now, taken + used)
  redis.call('SET', KEYS[1], bucket, 'PX', string.format('%.0f', ttl))
end
return {
  string.format('%.6f', granted), is_batch_granted and 1 or 0, string.format('%.6f', level)
}
