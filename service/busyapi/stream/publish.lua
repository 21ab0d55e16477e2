#!lua flags=allow-oom
-- Publish the archive's cursor, and trim archived entries from the stream.
--
-- KEYS  state, stream, lease, seq
-- ARGV  1 lease token  2 archived seq  3 lease TTL in milliseconds
--
-- Returns the partition's seq.
--
-- The token is checked in the same step: a flusher that lost its lease while it slept must not trim
-- entries that the new owner has not read yet.
local holder = redis.call('GET', KEYS[3])
if holder ~= ARGV[1] then
  return redis.error_reply('LEASE ' .. (holder or ''))
end
redis.call('PEXPIRE', KEYS[3], ARGV[3])
local seq = redis.call('GET', KEYS[4])
if not seq or redis.call('HEXISTS', KEYS[1], 'epoch') == 0 then
  return redis.error_reply('EPOCH the partition is no longer seeded')
end
if tonumber(redis.call('HGET', KEYS[1], 'archived') or '0') < tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[1], 'archived', ARGV[2])
  redis.call('XTRIM', KEYS[2], 'MINID', '=', string.format('%.0f-0', tonumber(ARGV[2]) + 1))
end
return tonumber(seq)
