#!lua flags=no-writes
-- Read the entries after a seq, up to a number of bytes.
--
-- KEYS  1 stream  2 the request for a hand-over, if the caller handles it
-- ARGV  1 the last seq that was read  2 offset into the value of the first entry
--       3 maximum bytes  4 maximum entries
--
-- Returns whether these were the last entries (1 or 0), for each entry its id, number of fields and
-- values, first field, bytes of its value and value, and the request or ''.
-- Only the first value may be partial: the bytes from ARGV[2] on that fit.
--
-- XREAD's COUNT alone does not bound a reply: an entry has a hundred bytes or many megabytes, and a
-- reply counts against maxmemory until the client has received it. So the script reads one entry
-- first, then a few at a time while they are small: it holds at most MAX_COUNT of them.
local MAX_COUNT = 4
local max_bytes, entries_left = tonumber(ARGV[3]), tonumber(ARGV[4])
local after = ARGV[1] .. '-18446744073709551615'
local out, size, count = {}, 0, 1
local request = KEYS[2] and redis.call('GET', KEYS[2]) or ''
while entries_left > 0 do
  local reply = redis.call('XREAD', 'COUNT', math.min(count, entries_left), 'STREAMS', KEYS[1], after)
  if not reply then
    return {1, out, request}
  end
  for _, entry in ipairs(reply[1][2]) do
    local fields = entry[2]
    local value = fields[2] or ''
    local length = #value
    if #out == 0 then
      value = string.sub(value, ARGV[2] + 1, ARGV[2] + max_bytes)
    elseif size + length > max_bytes then
      return {0, out, request}
    end
    out[#out + 1] = {entry[1], #fields, fields[1] or '', length, value}
    size = size + length
    entries_left = entries_left - 1
    after = entry[1]
  end
  if size >= max_bytes then
    return {0, out, request}
  end
  count = math.min(MAX_COUNT, count * 2)
end
return {0, out, request}
