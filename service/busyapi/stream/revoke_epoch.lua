#!lua flags=allow-oom
-- Take the epoch away, as the owner: nothing is committed until it mints another.
--
-- KEYS  state, lease
-- ARGV  1 lease token
local held = redis.call('GET', KEYS[2])
if held ~= ARGV[1] then
  return redis.error_reply('LEASE ' .. (held or ''))
end
return redis.call('HDEL', KEYS[1], 'epoch')
