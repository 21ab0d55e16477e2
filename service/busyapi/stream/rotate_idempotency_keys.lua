#!lua flags=allow-oom
-- Turn the hashes of Idempotency-Keys, and drop from the stream of new ones what the archive has.
--
-- KEYS  1 state  2 lease  3 keyed  4… the hashes of known keys
-- ARGV  1 lease token  2 the generation of new keys  3 its age in ms  4 most keys  5 archived seq
--
-- Gives how many keys are known, -1 when this user may not count them.
--
-- A generation's hash is emptied when the generation begins: three thirds of a key's time have
-- passed by then. Without a generation in the state nothing is known of the hashes, and they stay.
-- PEXPIRE with a time that is over deletes at once, and is a right that a flusher had before.
local held = redis.call('GET', KEYS[2])
if held ~= ARGV[1] then
  return redis.error_reply('LEASE ' .. (held or ''))
end
local hashes = #KEYS - 3
local new = tonumber(ARGV[2])
local old = redis.call('HMGET', KEYS[1], 'keys', 'keys_age', 'keys_max')
if old[1] then
  for each = math.max(tonumber(old[1]) + 1, new - hashes + 1), new do
    redis.call('PEXPIRE', KEYS[4 + each % hashes], -1)
  end
end
if old[1] ~= ARGV[2] or old[2] ~= ARGV[3] or old[3] ~= ARGV[4] then
  redis.call('HSET', KEYS[1], 'keys', ARGV[2], 'keys_age', ARGV[3], 'keys_max', ARGV[4])
end
redis.call('XTRIM', KEYS[3], 'MINID', '=', string.format('%.0f-0', tonumber(ARGV[5]) + 1))
local known = 0
for each = 4, #KEYS do
  local count = redis.pcall('HLEN', KEYS[each])
  if type(count) ~= 'number' then
    return -1
  end
  known = known + count
end
return known
