-- Commit n usages as one stream entry: all of it or nothing.
--
-- KEYS  state, seq, stream, guard (this lane's last batch)
-- ARGV  1 epoch  2 batch number  3 n  4 seconds the guard is kept
--       5 the highest seq this lane was given  6 the entry's value  7 the most replicas that may be connected, '' for any number
-- Gives the last seq, negative when it is the answer of an earlier call.
--
-- The server is asked in the same step who it is. A process that took over another's data since
-- the connection was checked has another replication id than the record, which came with that
-- data: it could give out again the ids of the tail that it lost.
--
-- The guard comes before the bound: a repeat of what was stored must get its answer although
-- the buffer, or memory, has filled since. Where replicas are waited for it writes its guard again
-- although nothing changed: WAIT counts from a connection's last write, so without one it would
-- confirm a batch that no replica has.
local state = redis.call('HMGET', KEYS[1], 'epoch', 'bound', 'archived', 'run_id')
local seq = redis.call('GET', KEYS[2])
if state[1] ~= ARGV[1] or not seq then
  return redis.error_reply('EPOCH not the epoch this connection was checked for')
end
if tonumber(seq) < tonumber(ARGV[5]) then
  -- Since the check the server was another's replica for a moment, and has that one's data.
  return redis.error_reply('EPOCH the counter is below what this lane was given')
end
local replication = redis.call('INFO', 'replication')
local history = string.match(state[4] or '', '%-(%w+)$') or 'none'
if not string.find(replication, 'role:master', 1, true)
    or not string.find(replication, 'master_replid:' .. history, 1, true) then
  return redis.error_reply('EPOCH the server has another replication history than the record')
end
if ARGV[7] ~= ''
    and tonumber(string.match(replication, 'connected_slaves:(%d+)')) > tonumber(ARGV[7]) then
  return redis.error_reply('REPLICAS more replicas are connected than are waited for')
end

local guard = redis.call('GET', KEYS[4])
if not guard then
  -- The lane wrote it before its first commit, so it was deleted, or it expired by a clock that
  -- stepped. Whether this call repeats a stored one is not known any more.
  return redis.error_reply('LANE this lane is not remembered')
end
local token, last = string.match(guard, '^(%S+) (%d+)$')
if token == ARGV[2] then
  if ARGV[7] ~= '' then
    redis.call('SET', KEYS[4], guard, 'KEEPTTL')
  end
  return -tonumber(last)
end
if tonumber(token) > tonumber(ARGV[2]) then
  -- An old call that was long on its way. Its usages were given up: it must not store them.
  return redis.error_reply('STALE a later batch of this lane is stored')
end

local n = tonumber(ARGV[3])
last = tonumber(seq) + n
if last - tonumber(state[3]) > tonumber(state[2]) then
  return redis.error_reply('FULL the archive is behind by the bound')
end
-- XADD before INCRBY: a counter that went back makes XADD fail, and then nothing is written.
redis.call('XADD', KEYS[3], string.format('%.0f-%.0f', last, n), 'u', ARGV[6])
redis.call('INCRBY', KEYS[2], n)
redis.call('SET', KEYS[4], string.format('%s %.0f', ARGV[2], last), 'EX', ARGV[4])
return last
