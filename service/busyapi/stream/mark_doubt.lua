#!lua flags=allow-oom
-- Note that a restart of this server must be taken for a loss.
--
-- KEYS  state, lease
-- ARGV  1 lease token  2 why
local held = redis.call('GET', KEYS[2])
if held ~= ARGV[1] then
  return redis.error_reply('LEASE ' .. (held or ''))
end
return redis.call('HSET', KEYS[1], 'doubt', ARGV[2])
