#!lua flags=allow-oom
-- Restore Idempotency-Keys on a server that may lack them. Keys that it has stay unchanged.
--
-- KEYS  1 lease  2 the hash of their generation
-- ARGV  1 lease token, then pairs of a field and its value
local holder = redis.call('GET', KEYS[1])
if holder ~= ARGV[1] then
  return redis.error_reply('LEASE ' .. (holder or ''))
end
for index = 2, #ARGV, 2 do
  if redis.call('HEXISTS', KEYS[2], ARGV[index]) == 0 then
    redis.call('HSET', KEYS[2], ARGV[index], ARGV[index + 1])
  end
end
return 1
