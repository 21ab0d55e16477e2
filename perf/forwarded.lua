-- Posts as Traefik forwards them: 14 headers in its order, and a token's as the fifteenth. Those that
-- name the device, the way or the request have other values in each request. wrk formats the requests
-- before the run, because formatting one takes as long as sending several.

local REQUESTS = 4096
local TEXT = [[
POST %s HTTP/1.1
Host: %s
User-Agent: inhaler/2.%d
Content-Length: %d
Accept: */*
Accept-Encoding: gzip
%sContent-Type: %s
Traceparent: 00-%s-%s-01
X-Forwarded-For: %s
X-Forwarded-Host: %s
X-Forwarded-Port: 443
X-Forwarded-Proto: https
X-Forwarded-Server: traefik-%s
X-Real-Ip: %s
X-Request-Id: %s

]]
TEXT = TEXT:gsub("\n", "\r\n")

local threads = 0
local requests = {}
local current = 0

-- wrk's threads share no variables, and start with the same seed.
function setup(thread)
   threads = threads + 1
   thread:set("number", threads)
end

local function random_hex(digits)
   local parts = {}
   for part = 1, digits / 4 do
      parts[part] = string.format("%04x", math.random(0, 0xffff))
   end
   return table.concat(parts)
end

local function format_request()
   local body, headers = wrk.body, wrk.headers
   if PATIENTS > 1 then
      body = body:gsub('"patientId":"%d+"', '"patientId":"' .. math.random(PATIENTS) .. '"')
   end
   local token = headers["Authorization"]
   local address = string.format(
      "10.%d.%d.%d", math.random(0, 255), math.random(0, 255), math.random(1, 254))
   return string.format(
      TEXT, wrk.path, headers["Host"], math.random(0, 99), #body,
      token and "Authorization: " .. token .. "\r\n" or "", headers["Content-Type"],
      random_hex(32), random_hex(16), address, headers["Host"], random_hex(8), address,
      random_hex(32)) .. body
end

function init()
   math.randomseed(number)
   for position = 1, REQUESTS do
      requests[position] = format_request()
   end
end

function request()
   current = current % REQUESTS + 1
   return requests[current]
end
