#!lua flags=allow-oom
-- Take or renew the lease of a partition.
--
-- KEYS  lease, seq
-- ARGV  1 `<archive id>:<token of this run>`  2 milliseconds  3 the value to be replaced, '' for none
--
-- Gives the partition's seq.
--
-- Compare and set: who takes the lease names the value that it has watched, or that there was none,
-- and of two only one succeeds. Who renews it names its own. Full memory refuses no script of the
-- flusher (allow-oom): only archiving makes room.
local held = redis.call('GET', KEYS[1]) or ''
if held ~= ARGV[3] then
  return redis.error_reply('LEASE ' .. held)
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return tonumber(redis.call('GET', KEYS[2]) or '0')
