#!lua flags=allow-oom
-- Record that a restart of this server must count as a loss.
--
-- KEYS  state, lease
-- ARGV  1 lease token  2 reason
local holder = redis.call('GET', KEYS[2])
if holder ~= ARGV[1] then
  return redis.error_reply('LEASE ' .. (holder or ''))
end
return redis.call('HSET', KEYS[1], 'doubt', ARGV[2])
