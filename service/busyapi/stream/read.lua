#!lua flags=no-writes
-- Read entries behind a seq until a number of bytes is reached.
--
-- KEYS  stream
-- ARGV  1 the last seq that was read  2 how much of the next entry's value was read before
--       3 most bytes  4 most entries
--
-- Gives for each entry: id, number of fields and values, first field, bytes of its value, the value.
-- Only the first value may be a part: what begins at ARGV[2] and fits.
--
-- A count of entries would not do: one has a hundred bytes or many megabytes, and a reply counts
-- against maxmemory until the client has taken it. One XREAD an entry holds at most one here.
local most = tonumber(ARGV[3])
local after = ARGV[1] .. '-18446744073709551615'
local out, size = {}, 0
for n = 1, tonumber(ARGV[4]) do
  local reply = redis.call('XREAD', 'COUNT', 1, 'STREAMS', KEYS[1], after)
  if not reply then
    break
  end
  local id, fields = reply[1][2][1][1], reply[1][2][1][2]
  local value = fields[2] or ''
  local length = #value
  if n > 1 and size + length > most then
    break
  end
  if n == 1 then
    value = string.sub(value, ARGV[2] + 1, ARGV[2] + most)
  end
  out[n] = {id, #fields, fields[1] or '', length, value}
  size = size + length
  if size >= most then
    break
  end
  after = id
end
return out
