#!lua flags=allow-oom
-- Acquire or renew the lease of a partition.
--
-- KEYS  lease, seq
-- ARGV  1 `<archive id>:<token of this run>`  2 TTL in milliseconds
--       3 the expected current value, '' for no lease
--
-- Returns the partition's seq.
--
-- Compare and set: a flusher that acquires the lease passes the value that it has observed, or '',
-- so that only one of two flushers succeeds. To renew, it passes its own value. Full memory refuses
-- no script of the flusher (allow-oom): only archiving frees memory.
local holder = redis.call('GET', KEYS[1]) or ''
if holder ~= ARGV[3] then
  return redis.error_reply('LEASE ' .. holder)
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return tonumber(redis.call('GET', KEYS[2]) or '0')
