#!lua flags=allow-oom
-- Make the partition this server's, or say again that it is.
--
-- KEYS  state, seq, stream, lease
-- ARGV  1 lease token  2 seq, or '' to keep the one there  3 archived  4… pairs for the state
local held = redis.call('GET', KEYS[4])
if held ~= ARGV[1] then
  return redis.error_reply('LEASE ' .. (held or ''))
end
if ARGV[2] ~= '' then
  redis.call('SET', KEYS[2], ARGV[2])
end
redis.call('HSET', KEYS[1], 'archived', ARGV[3], unpack(ARGV, 4))
redis.call('XTRIM', KEYS[3], 'MINID', '=', string.format('%.0f-0', tonumber(ARGV[3]) + 1))
return 1
