#!lua flags=allow-oom
-- Give Idempotency-Keys back to a server that may lack them. What it has stays as it is.
--
-- KEYS  1 lease  2 the hash of their generation
-- ARGV  1 lease token, then pairs of a field and its value
local held = redis.call('GET', KEYS[1])
if held ~= ARGV[1] then
  return redis.error_reply('LEASE ' .. (held or ''))
end
for each = 2, #ARGV, 2 do
  if redis.call('HEXISTS', KEYS[2], ARGV[each]) == 0 then
    redis.call('HSET', KEYS[2], ARGV[each], ARGV[each + 1])
  end
end
return 1
