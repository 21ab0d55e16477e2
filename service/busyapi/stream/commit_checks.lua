-- The checks that every commit makes first, in the same atomic step. `scripts.py` puts this file in
-- front of commit.lua and commit_keyed.lua.
--
-- KEYS  1 state  2 seq
-- ARGV  1 epoch  2 the highest seq that this process received
--       3 '' if the committer does not wait for replicas
--
-- `check_commit` returns the counter and the record (bound, archived, generation and maximum number
-- of Idempotency-Keys), or nil and the error reply.
--
-- The script reads the server's replication id itself. If this process took over the data of another
-- one after the connection was checked, its replication id differs from the one in the record, which
-- came with that data. It could issue again the ids of the newest writes, which it lacks.
local function has_history(replication, history)
  return string.find(replication, 'master_replid:' .. history, 1, true)
end

local function check_commit()
  local state = redis.call(
    'HMGET', KEYS[1], 'epoch', 'run_id', 'bound', 'archived', 'keys_generation', 'keys_max')
  local seq = redis.call('GET', KEYS[2])
  if state[1] ~= ARGV[1] or not seq then
    return nil, redis.error_reply('EPOCH not the epoch that this connection was checked for')
  end
  if tonumber(seq) < tonumber(ARGV[2]) then
    -- After the check the server was briefly a replica of another one, and has that one's data.
    return nil, redis.error_reply('EPOCH the counter is below the highest seq of this committer')
  end
  local replication = redis.call('INFO', 'replication')
  local history = string.match(state[2] or '', '%-(%w+)$') or 'none'
  if not string.find(replication, 'role:master', 1, true)
      or not has_history(replication, history) then
    return nil, redis.error_reply(
      'EPOCH the replication history of the server differs from the record')
  end
  return tonumber(seq), {
    bound = tonumber(state[3]),
    archived = tonumber(state[4]),
    generation = tonumber(state[5] or '0'),
    -- A partition that 0.2.0 seeded has no maximum yet, and no flusher that empties the hashes.
    max_keys = tonumber(state[6] or '100000'),
  }
end

