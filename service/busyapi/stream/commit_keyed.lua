-- Commit the usages of one request under its Idempotency-Key, atomically.
--
-- KEYS  1 state  2 seq  3 stream  4 stream of new Idempotency-Keys  5 the key under its 0.2.0 name  6… hashes of known keys
-- ARGV  1 to 3: see commit_checks.lua  4 digest of the key  5 digest of the body
--       6 token of the request, or ''  7 n  8 value of the entry  9 received at, ms
-- Returns the last seq, negative if an earlier request stored the usages.
--
-- A known key is a field of one of the hashes: `<digest of the body> <last seq> <request token>`.
-- The token distinguishes a committer that retries a request from a device that sends a new one. The
-- flusher empties the hashes in turn by its own clock, so keys do not depend on the server's clock.
--
-- The key also goes to the archive, through the stream `keyed`, so that a flusher can restore it on
-- another server. An entry begins with its version, which `idempotency.py` checks. The script writes
-- the entry in the same step as the usages and after them: if the archive had a key without its
-- usages, the key would answer for usages that do not exist.
--
-- Known keys are looked up before the bound and the maximum are checked: the retry of a stored
-- request must get its reply even if the buffer or the server's memory has filled up since. If the
-- committer waits for replicas, a retry writes its field again although nothing changes: WAIT
-- covers only the writes of its own connection. A server that cannot write, for example because its
-- memory is full, cannot answer such a retry and replies KNOWN.
local seq, record = check_commit()
if not seq then
  return record
end

for index = 6, #KEYS do
  local known = redis.call('HGET', KEYS[index], ARGV[4])
  if known then
    local body, last, token = string.match(known, '^(%S+) (%d+) ?(%S*)$')
    if body ~= ARGV[5] then
      return redis.error_reply('KEYREUSED the key was used with another body')
    end
    if ARGV[3] ~= '' and redis.pcall('HSET', KEYS[index], ARGV[4], known) ~= 0 then
      return redis.error_reply('KNOWN the usages are stored, but replicas may not have them')
    end
    return token ~= '' and token == ARGV[6] and tonumber(last) or -tonumber(last)
  end
end
-- 0.2.0 had one namespace for all devices: under another body the key may be another device's.
local legacy = redis.call('GET', KEYS[5])
if legacy then
  local body, last = string.match(legacy, '^(%S+) (%d+)$')
  if body == ARGV[5] then
    if ARGV[3] ~= '' and redis.pcall('SET', KEYS[5], legacy, 'KEEPTTL').err then
      return redis.error_reply('KNOWN the usages are stored, but replicas may not have them')
    end
    return -tonumber(last)
  end
end

local n = tonumber(ARGV[7])
local last = seq + n
if last - record.archived > record.bound then
  return redis.error_reply('FULL the backlog would exceed the bound')
end
local count = 0
for index = 6, #KEYS do
  local length = redis.pcall('HLEN', KEYS[index])
  if type(length) ~= 'number' then
    -- The ACL of an earlier release. The check precedes all writes, so that it costs only keyed
    -- requests.
    return redis.error_reply('KEYRIGHTS the ACL does not allow Idempotency-Keys')
  end
  count = count + length
end
local hash = KEYS[6 + record.generation % (#KEYS - 5)]
if not redis.acl_check_cmd('HSET', hash, ARGV[4], ARGV[5]) then
  -- If HSET failed after XADD, the usages would stay, and the next try would store them again.
  return redis.error_reply('KEYRIGHTS the ACL does not allow Idempotency-Keys')
end
if count >= record.max_keys then
  return redis.error_reply('KEYS the number of known Idempotency-Keys is at its maximum')
end
-- XADD precedes INCRBY: if the counter went back, XADD fails and nothing is written.
local id = string.format('%.0f-%.0f', last, n)
redis.call('XADD', KEYS[3], id, 'u', ARGV[8])
redis.call('INCRBY', KEYS[2], n)
redis.call('HSET', hash, ARGV[4], string.format('%s %.0f %s', ARGV[5], last, ARGV[6]))
redis.call('XADD', KEYS[4], id, 'k', string.format('1 %s %s %s', ARGV[9], ARGV[4], ARGV[5]))
return last
