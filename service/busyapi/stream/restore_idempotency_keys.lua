#!lua flags=allow-oom
-- Restore Idempotency-Keys on a server that may lack them. Keys that it has stay unchanged. If one is
-- restored twice, the later usages count. Only a restored key has no token behind its last seq.
--
-- KEYS  1 lease  2 the hash of their generation
-- ARGV  1 lease token, then pairs of a field and its value
local holder = redis.call('GET', KEYS[1])
if holder ~= ARGV[1] then
  return redis.error_reply('LEASE ' .. (holder or ''))
end
for index = 2, #ARGV, 2 do
  local known = redis.call('HGET', KEYS[2], ARGV[index])
  local restored = known and string.match(known, '^%S+ (%d+) $')
  local last = string.match(ARGV[index + 1], '^%S+ (%d+) $')
  if not known or (restored and tonumber(last) > tonumber(restored)) then
    redis.call('HSET', KEYS[2], ARGV[index], ARGV[index + 1])
  end
end
return 1
