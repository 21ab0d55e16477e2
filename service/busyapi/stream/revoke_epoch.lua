#!lua flags=allow-oom
-- Revoke the epoch, as the owner: no commit succeeds until the owner mints a new one.
--
-- KEYS  state, lease
-- ARGV  1 lease token  2 1 to pause it: the record keeps it, so that ids can continue without a jump
--
-- Returns the epoch that was paused, '' without one.
local holder = redis.call('GET', KEYS[2])
if holder ~= ARGV[1] then
  return redis.error_reply('LEASE ' .. (holder or ''))
end
local epoch = redis.call('HGET', KEYS[1], 'epoch')
local is_pause = epoch and ARGV[2] == '1'
redis.call('HSET', KEYS[1], 'paused', is_pause and epoch or '')
redis.call('HDEL', KEYS[1], 'epoch')
return is_pause and epoch or ''
