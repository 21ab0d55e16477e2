-- Commit the usages of one request under its Idempotency-Key: all of it or nothing.
--
-- KEYS  1 state  2 seq  3 stream  4 keyed  5 the key as 0.2.0 named it  6… the hashes of known keys
-- ARGV  1 epoch  2 digest of the key  3 digest of the body  4 sign of the request, or ''
--       5 n  6 the highest seq this lane was given  7 the entry's value
--       8 the most replicas that may be connected, '' for any number  9 received at, ms
-- Gives the last seq, negative when an earlier request got it.
--
-- A known key is a field of one of the hashes: `<digest of the body> <last seq> <sign>`. The sign
-- tells a lane's repeat of one request from the request of a device that tries again. The flusher
-- empties the hashes in turn by its own clock: no key leans on this server's clock.
--
-- The key goes to the archive too, by way of `keyed`, so that whoever prepares another server can
-- give it back. It is written in the same step as the usages, after them: a key that the archive
-- has without its usages would answer for what is not there.
--
-- Known keys come before the bound and the budget: a repeat of what was stored must get its answer
-- although the buffer, or memory, has filled since. Where replicas are waited for it writes its field
-- again although nothing changed: WAIT counts from a connection's last write. A server that cannot
-- write, such as one whose memory is full, cannot be asked then: KNOWN.
local state = redis.call('HMGET', KEYS[1], 'epoch', 'bound', 'archived', 'run_id', 'keys', 'keys_max')
local seq = redis.call('GET', KEYS[2])
if state[1] ~= ARGV[1] or not seq then
  return redis.error_reply('EPOCH not the epoch this connection was checked for')
end
if tonumber(seq) < tonumber(ARGV[6]) then
  return redis.error_reply('EPOCH the counter is below what this lane was given')
end
local replication = redis.call('INFO', 'replication')
local history = string.match(state[4] or '', '%-(%w+)$') or 'none'
if not string.find(replication, 'role:master', 1, true)
    or not string.find(replication, 'master_replid:' .. history, 1, true) then
  return redis.error_reply('EPOCH the server has another replication history than the record')
end
if ARGV[8] ~= ''
    and tonumber(string.match(replication, 'connected_slaves:(%d+)')) > tonumber(ARGV[8]) then
  return redis.error_reply('REPLICAS more replicas are connected than are waited for')
end

for each = 6, #KEYS do
  local known = redis.call('HGET', KEYS[each], ARGV[2])
  if known then
    local body, last, sign = string.match(known, '^(%S+) (%d+) ?(%S*)$')
    if body ~= ARGV[3] then
      return redis.error_reply('KEYREUSED another body under this key')
    end
    if ARGV[8] ~= '' and redis.pcall('HSET', KEYS[each], ARGV[2], known) ~= 0 then
      return redis.error_reply('KNOWN it is stored, and whether replicas have it is not known')
    end
    return sign ~= '' and sign == ARGV[4] and tonumber(last) or -tonumber(last)
  end
end
-- 0.2.0 had one name space for all: there another body may be another device's.
local legacy = redis.call('GET', KEYS[5])
if legacy then
  local body, last = string.match(legacy, '^(%S+) (%d+)$')
  if body == ARGV[3] then
    if ARGV[8] ~= '' and redis.pcall('SET', KEYS[5], legacy, 'KEEPTTL').err then
      return redis.error_reply('KNOWN it is stored, and whether replicas have it is not known')
    end
    return -tonumber(last)
  end
end

local n = tonumber(ARGV[5])
local last = tonumber(seq) + n
if last - tonumber(state[3]) > tonumber(state[2]) then
  return redis.error_reply('FULL the archive is behind by the bound')
end
local count = 0
for each = 6, #KEYS do
  local known = redis.pcall('HLEN', KEYS[each])
  if type(known) ~= 'number' then
    -- The rights of an older release: said before anything is written, so that only keys are refused.
    return redis.error_reply('KEYRIGHTS this user may not keep Idempotency-Keys')
  end
  count = count + known
end
local hash = KEYS[6 + tonumber(state[5] or '0') % (#KEYS - 5)]
if not redis.acl_check_cmd('HSET', hash, ARGV[2], ARGV[3]) then
  -- A refusal behind XADD would leave the usages stored, and the next try stores them again.
  return redis.error_reply('KEYRIGHTS this user may not keep Idempotency-Keys')
end
-- A partition that 0.2.0 seeded has no budget yet, and nobody who empties the hashes.
if count >= tonumber(state[6] or '100000') then
  return redis.error_reply('KEYS as many Idempotency-Keys are known as may be')
end
-- XADD before INCRBY: a counter that went back makes XADD fail, and then nothing is written.
local id = string.format('%.0f-%.0f', last, n)
redis.call('XADD', KEYS[3], id, 'u', ARGV[7])
redis.call('INCRBY', KEYS[2], n)
redis.call('HSET', hash, ARGV[2], string.format('%s %.0f %s', ARGV[3], last, ARGV[4]))
redis.call('XADD', KEYS[4], id, 'k', string.format('%s %s %s', ARGV[9], ARGV[2], ARGV[3]))
return last
