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
-- against maxmemory until the client has taken it. Here one entry is read first, and a few at a time
-- while they are small: at most AT_ONCE are in this script's memory.
local AT_ONCE = 4
local most, left = tonumber(ARGV[3]), tonumber(ARGV[4])
local after = ARGV[1] .. '-18446744073709551615'
local out, size, count = {}, 0, 1
while left > 0 do
  local reply = redis.call('XREAD', 'COUNT', math.min(count, left), 'STREAMS', KEYS[1], after)
  if not reply then
    return out
  end
  for _, entry in ipairs(reply[1][2]) do
    local fields = entry[2]
    local value = fields[2] or ''
    local length = #value
    if #out == 0 then
      value = string.sub(value, ARGV[2] + 1, ARGV[2] + most)
    elseif size + length > most then
      return out
    end
    out[#out + 1] = {entry[1], #fields, fields[1] or '', length, value}
    size = size + length
    left = left - 1
    after = entry[1]
  end
  if size >= most then
    return out
  end
  count = math.min(AT_ONCE, count * 2)
end
return out
