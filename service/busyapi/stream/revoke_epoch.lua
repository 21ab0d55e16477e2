#!lua flags=allow-oom
-- Revoke the epoch, as the owner: no commit succeeds until the owner mints a new one.
--
-- KEYS  state, lease
-- ARGV  1 lease token
local holder = redis.call('GET', KEYS[2])
if holder ~= ARGV[1] then
  return redis.error_reply('LEASE ' .. (holder or ''))
end
return redis.call('HDEL', KEYS[1], 'epoch')
