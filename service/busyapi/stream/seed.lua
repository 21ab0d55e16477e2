#!lua flags=allow-oom
-- Seed the partition on this server, or confirm that it is seeded.
--
-- KEYS  state, seq, stream, lease
-- ARGV  1 lease token  2 seq, or '' to keep the counter  3 archived  4… pairs for the state
local holder = redis.call('GET', KEYS[4])
if holder ~= ARGV[1] then
  return redis.error_reply('LEASE ' .. (holder or ''))
end
if ARGV[2] ~= '' then
  redis.call('SET', KEYS[2], ARGV[2])
end
redis.call('HSET', KEYS[1], 'archived', ARGV[3], unpack(ARGV, 4))
redis.call('XTRIM', KEYS[3], 'MINID', '=', string.format('%.0f-0', tonumber(ARGV[3]) + 1))
return 1
