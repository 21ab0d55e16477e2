-- What every commit asks before anything else, in the same atomic step. It stands before commit.lua and
-- commit_keyed.lua when they are loaded.
--
-- KEYS  1 state  2 seq
-- ARGV  1 epoch  2 the highest seq this committer was given
--       3 how many replicas are waited for, and may be connected at most; '' for any number
--
-- Gives the counter and the record: bound, archived, and of keys the generation and the maximum; or
-- nil and the refusal.
--
-- The server is asked who it is. A process that took over another's data since the connection was
-- checked has another replication id than the record, which came with that data: it could give out
-- again the ids of the tail that it lost.
local function has_history(replication, history)
  return string.find(replication, 'master_replid:' .. history, 1, true)
end

local function check_commit()
  local state = redis.call(
    'HMGET', KEYS[1], 'epoch', 'run_id', 'bound', 'archived', 'keys', 'keys_max')
  local seq = redis.call('GET', KEYS[2])
  if state[1] ~= ARGV[1] or not seq then
    return nil, redis.error_reply('EPOCH not the epoch this connection was checked for')
  end
  if tonumber(seq) < tonumber(ARGV[2]) then
    -- Since the check the server was another's replica for a moment, and has that one's data.
    return nil, redis.error_reply('EPOCH the counter is below what this committer was given')
  end
  local replication = redis.call('INFO', 'replication')
  local history = string.match(state[2] or '', '%-(%w+)$') or 'none'
  if not string.find(replication, 'role:master', 1, true)
      or not has_history(replication, history) then
    return nil, redis.error_reply(
      'EPOCH the server has another replication history than the record')
  end
  if ARGV[3] ~= ''
      and tonumber(string.match(replication, 'connected_slaves:(%d+)')) > tonumber(ARGV[3]) then
    return nil, redis.error_reply('REPLICAS more replicas are connected than are waited for')
  end
  return tonumber(seq), {
    bound = tonumber(state[3]),
    archived = tonumber(state[4]),
    keys = tonumber(state[5] or '0'),
    -- A partition that 0.2.0 seeded has no budget yet, and no flusher that empties the hashes.
    keys_max = tonumber(state[6] or '100000'),
  }
end

