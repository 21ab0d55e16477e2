#!lua flags=allow-oom
-- Take or keep the lease of a partition.
--
-- KEYS  lease, seq
-- ARGV  1 archive id  2 token of this run  3 milliseconds
--
-- Gives the partition's seq.
--
-- The value is `<archive id>:<token>`. The same archive may take it over at once: its folder's
-- lock already says that the earlier owner is gone. Another archive waits until it expires. Full
-- memory refuses no script of the flusher (allow-oom): only archiving makes room.
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, #ARGV[1] + 1) ~= ARGV[1] .. ':' then
  return redis.error_reply('LEASE held by another flusher')
end
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. ARGV[2], 'PX', ARGV[3])
return tonumber(redis.call('GET', KEYS[2]) or '0')
