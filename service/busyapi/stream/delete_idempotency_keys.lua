#!lua flags=allow-oom
-- Delete every Idempotency-Key, as the owner of a fresh install.
--
-- KEYS  1 lease  2… keyed and the hashes of known keys
-- ARGV  1 lease token
--
-- The token is checked in the same step: a flusher that slept could find the keys of usages that
-- another flusher owns by now.
local holder = redis.call('GET', KEYS[1])
if holder ~= ARGV[1] then
  return redis.error_reply('LEASE ' .. (holder or ''))
end
for index = 2, #KEYS do
  redis.call('PEXPIRE', KEYS[index], -1)
end
return 1
