#!lua flags=allow-oom
-- Rotate the hashes of Idempotency-Keys, and trim archived entries from the stream of new keys.
--
-- KEYS  1 state  2 lease  3 keyed  4… hashes of known keys
-- ARGV  1 lease token  2 generation of new keys  3 its age in ms  4 maximum number of keys
--       5 archived seq
--
-- Returns the number of known keys, or -1 if the ACL does not allow to count them.
--
-- A hash is emptied when its next generation begins: by then at least a key's whole TTL has passed
-- for every key in it. If the state has no generation, nothing is known about the hashes, and they
-- stay. PEXPIRE with a time in the past deletes at once, and flushers have always had that right.
local holder = redis.call('GET', KEYS[2])
if holder ~= ARGV[1] then
  return redis.error_reply('LEASE ' .. (holder or ''))
end
local hashes = #KEYS - 3
local new = tonumber(ARGV[2])
local old = redis.call('HMGET', KEYS[1], 'keys_generation', 'keys_age', 'keys_max')
if old[1] then
  for generation = math.max(tonumber(old[1]) + 1, new - hashes + 1), new do
    redis.call('PEXPIRE', KEYS[4 + generation % hashes], -1)
  end
end
if old[1] ~= ARGV[2] or old[2] ~= ARGV[3] or old[3] ~= ARGV[4] then
  redis.call('HSET', KEYS[1], 'keys_generation', ARGV[2], 'keys_age', ARGV[3], 'keys_max', ARGV[4])
end
redis.call('XTRIM', KEYS[3], 'MINID', '=', string.format('%.0f-0', tonumber(ARGV[5]) + 1))
local count = 0
for index = 4, #KEYS do
  local length = redis.pcall('HLEN', KEYS[index])
  if type(length) ~= 'number' then
    return -1
  end
  count = count + length
end
return count
