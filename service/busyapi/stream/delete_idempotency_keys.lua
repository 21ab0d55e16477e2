#!lua flags=allow-oom
-- Delete every Idempotency-Key, as the owner of a fresh install.
--
-- KEYS  1 lease  2… keyed and the hashes of known keys
-- ARGV  1 lease token
--
-- The token is checked in the same step: a flusher that slept may find the keys of another's usages.
local held = redis.call('GET', KEYS[1])
if held ~= ARGV[1] then
  return redis.error_reply('LEASE ' .. (held or ''))
end
for each = 2, #KEYS do
  redis.call('PEXPIRE', KEYS[each], -1)
end
return 1
