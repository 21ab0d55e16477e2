#!lua flags=allow-oom
-- Record which replicas must confirm each commit.
--
-- KEYS  replicas, lease
-- ARGV  1 lease token  2 record
local holder = redis.call('GET', KEYS[2])
if holder ~= ARGV[1] then
  return redis.error_reply('LEASE ' .. (holder or ''))
end
return redis.call('SET', KEYS[1], ARGV[2])
