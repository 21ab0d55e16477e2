-- Revoke the epoch, as a committer: no commit succeeds until a flusher has seeded the partition again.
--
-- KEYS  state
-- ARGV  the epoch that the caller read; a newer one stays
if redis.call('HGET', KEYS[1], 'epoch') == ARGV[1] then
  return redis.call('HDEL', KEYS[1], 'epoch')
end
return 0
