-- Commit n usages as one stream entry, atomically.
--
-- KEYS  1 state  2 seq  3 stream  4 this committer's last batch
-- ARGV  1 to 3: see commit_checks.lua  4 batch number  5 n  6 TTL of the last batch in seconds
--       7 value of the entry
-- Returns the last seq, negative if an earlier call stored this batch.
--
-- The last batch is compared before the bound is checked: the retry of a stored batch must get its
-- reply even if the buffer or the server's memory has filled up since. If the committer waits for
-- replicas, a retry writes the last batch again although nothing changes: WAIT covers only the
-- writes of its own connection, so without this write it would confirm a batch that no replica has.
local function is_retry(token)
  return token == ARGV[4]
end

local seq, record = check_commit()
if not seq then
  return record
end

local last_batch = redis.call('GET', KEYS[4])
if not last_batch then
  -- The committer writes this key before its first commit, so somebody deleted it, or it expired
  -- after a clock step. Whether this call retries a stored one is unknown.
  return redis.error_reply('UNREGISTERED the server has no last batch of this committer')
end
local token, last = string.match(last_batch, '^(%S+) (%d+)$')
if is_retry(token) then
  if ARGV[3] ~= '' then
    redis.call('SET', KEYS[4], last_batch, 'KEEPTTL')
  end
  return -tonumber(last)
end
if tonumber(token) > tonumber(ARGV[4]) then
  -- A delayed call. The committer has given up its usages, so it must not store them.
  return redis.error_reply('STALE a later batch of this committer is stored')
end

local n = tonumber(ARGV[5])
last = seq + n
if last - record.archived > record.bound then
  return redis.error_reply('FULL the backlog would exceed the bound')
end
-- XADD precedes INCRBY: if the counter went back, XADD fails and nothing is written.
redis.call('XADD', KEYS[3], string.format('%.0f-%.0f', last, n), 'u', ARGV[7])
redis.call('INCRBY', KEYS[2], n)
redis.call('SET', KEYS[4], string.format('%s %.0f', ARGV[4], last), 'EX', ARGV[6])
return last
