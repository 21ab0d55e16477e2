#!lua flags=allow-oom
-- Release the lease if the caller holds it.
--
-- KEYS  lease
-- ARGV  1 lease token
--
-- An expiry in the past deletes the key; the ACL of earlier installs does not allow DEL.
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], 0)
end
return 0
