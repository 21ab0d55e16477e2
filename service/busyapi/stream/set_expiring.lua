#!lua flags=allow-oom
-- Write one small key that expires: a committer's memory before its first commit, or the write that
-- WAITAOF is asked about. Full memory does not refuse it: commits are, with a clearer answer.
--
-- KEYS  the key
-- ARGV  1 value  2 seconds
return redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
