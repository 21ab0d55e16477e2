-- Commit n usages as one stream entry: all of it or nothing.
--
-- KEYS  1 state  2 seq  3 stream  4 this committer's last batch
-- ARGV  1 to 3: see commit_checks.lua  4 batch number  5 n  6 seconds that it is remembered  7 the entry's value
-- Gives the last seq, negative when it is the answer of an earlier call.
--
-- The last batch comes before the bound: a repeat of what was stored must get its answer although
-- the buffer, or memory, has filled since. Where replicas are waited for it writes that again
-- although nothing changed: WAIT counts from a connection's last write, so without one it would
-- confirm a batch that no replica has.
local function is_repeat(token)
  return token == ARGV[4]
end

local seq, record = check_commit()
if not seq then
  return record
end

local last_batch = redis.call('GET', KEYS[4])
if not last_batch then
  -- The committer wrote it before its first commit, so it was deleted, or it expired by a clock that
  -- stepped. Whether this call repeats a stored one is not known any more.
  return redis.error_reply('LANE this committer is not remembered')
end
local token, last = string.match(last_batch, '^(%S+) (%d+)$')
if is_repeat(token) then
  if ARGV[3] ~= '' then
    redis.call('SET', KEYS[4], last_batch, 'KEEPTTL')
  end
  return -tonumber(last)
end
if tonumber(token) > tonumber(ARGV[4]) then
  -- An old call that was long on its way. Its usages were given up: it must not store them.
  return redis.error_reply('STALE a later batch of this committer is stored')
end

local n = tonumber(ARGV[5])
last = seq + n
if last - record.archived > record.bound then
  return redis.error_reply('FULL the archive is behind by the bound')
end
-- XADD before INCRBY: a counter that went back makes XADD fail, and then nothing is written.
redis.call('XADD', KEYS[3], string.format('%.0f-%.0f', last, n), 'u', ARGV[7])
redis.call('INCRBY', KEYS[2], n)
redis.call('SET', KEYS[4], string.format('%s %.0f', ARGV[4], last), 'EX', ARGV[6])
return last
