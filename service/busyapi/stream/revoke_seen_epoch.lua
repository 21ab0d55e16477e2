-- Take the epoch away, so that nothing is committed until a flusher has seeded anew.
--
-- KEYS  state
-- ARGV  the epoch the caller saw: a newer one is not its to remove
if redis.call('HGET', KEYS[1], 'epoch') == ARGV[1] then
  return redis.call('HDEL', KEYS[1], 'epoch')
end
return 0
