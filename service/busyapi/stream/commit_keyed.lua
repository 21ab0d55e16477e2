-- Commit the usages of one request under its Idempotency-Key: all of it or nothing.
--
-- KEYS  1 state  2 seq  3 stream  4 keyed  5 the key as 0.2.0 named it  6… the hashes of known keys
-- ARGV  1 to 3: see commit_checks.lua  4 digest of the key  5 digest of the body
--       6 sign of the request, or ''  7 n  8 the entry's value  9 received at, ms
-- Gives the last seq, negative when an earlier request got it.
--
-- A known key is a field of one of the hashes: `<digest of the body> <last seq> <sign>`. The sign
-- tells a committer's repeat of one request from the request of a device that tries again. The flusher
-- empties the hashes in turn by its own clock: no key leans on this server's clock.
--
-- The key goes to the archive too, by way of `keyed`, so that whoever prepares another server can
-- give it back. Its entry begins with its version, which `idempotency.py` checks. It is written in the same step as the usages, after them: a key that the archive
-- has without its usages would answer for what is not there.
--
-- Known keys come before the bound and the budget: a repeat of what was stored must get its answer
-- although the buffer, or memory, has filled since. Where replicas are waited for it writes its field
-- again although nothing changed: WAIT counts from a connection's last write. A server that cannot
-- write, such as one whose memory is full, cannot be asked then: KNOWN.
local seq, record = check_commit()
if not seq then
  return record
end

for each = 6, #KEYS do
  local known = redis.call('HGET', KEYS[each], ARGV[4])
  if known then
    local body, last, sign = string.match(known, '^(%S+) (%d+) ?(%S*)$')
    if body ~= ARGV[5] then
      return redis.error_reply('KEYREUSED another body under this key')
    end
    if ARGV[3] ~= '' and redis.pcall('HSET', KEYS[each], ARGV[4], known) ~= 0 then
      return redis.error_reply('KNOWN it is stored, and whether replicas have it is not known')
    end
    return sign ~= '' and sign == ARGV[6] and tonumber(last) or -tonumber(last)
  end
end
-- 0.2.0 had one name space for all: there another body may be another device's.
local legacy = redis.call('GET', KEYS[5])
if legacy then
  local body, last = string.match(legacy, '^(%S+) (%d+)$')
  if body == ARGV[5] then
    if ARGV[3] ~= '' and redis.pcall('SET', KEYS[5], legacy, 'KEEPTTL').err then
      return redis.error_reply('KNOWN it is stored, and whether replicas have it is not known')
    end
    return -tonumber(last)
  end
end

local n = tonumber(ARGV[7])
local last = seq + n
if last - record.archived > record.bound then
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
local hash = KEYS[6 + record.keys % (#KEYS - 5)]
if not redis.acl_check_cmd('HSET', hash, ARGV[4], ARGV[5]) then
  -- A refusal behind XADD would leave the usages stored, and the next try stores them again.
  return redis.error_reply('KEYRIGHTS this user may not keep Idempotency-Keys')
end
if count >= record.keys_max then
  return redis.error_reply('KEYS as many Idempotency-Keys are known as may be')
end
-- XADD before INCRBY: a counter that went back makes XADD fail, and then nothing is written.
local id = string.format('%.0f-%.0f', last, n)
redis.call('XADD', KEYS[3], id, 'u', ARGV[8])
redis.call('INCRBY', KEYS[2], n)
redis.call('HSET', hash, ARGV[4], string.format('%s %.0f %s', ARGV[5], last, ARGV[6]))
redis.call('XADD', KEYS[4], id, 'k', string.format('1 %s %s %s', ARGV[9], ARGV[4], ARGV[5]))
return last
