#!lua flags=allow-oom
-- Write one small key that expires: a committer's last batch before its first commit, or the probe
-- that WAITAOF confirms. Full memory does not refuse this write; it refuses commits, with a clearer
-- error.
--
-- KEYS  the key
-- ARGV  1 value  2 TTL in seconds
return redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
