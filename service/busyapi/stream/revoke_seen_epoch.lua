-- Revoke the epoch, as a committer: no commit succeeds until a flusher has seeded the partition again.
--
-- KEYS  state
-- ARGV  the epoch that the caller read, also a paused one; a newer one stays
--
-- A flusher continues a paused epoch without a jump of ids, which this server must not do.
local record = redis.call('HMGET', KEYS[1], 'epoch', 'paused')
if record[1] == ARGV[1] or (not record[1] and record[2] == ARGV[1]) then
  return redis.call('HDEL', KEYS[1], 'epoch', 'paused')
end
return 0
