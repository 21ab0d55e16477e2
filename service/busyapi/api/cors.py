"""CORS: pages of configured origins may call the API from a browser (Fetch standard).

Off unless origins are configured. A response names the request's origin, never `*`: its content is
patients' usages. A preflight has no credentials and needs none. CORS is not access control:
requests of other origins are served too, but their pages cannot read the responses.
"""

import re

from sanic import Request
from sanic.response import BaseHTTPResponse, HTTPResponse

from busyapi.errors import ConfigError
from busyapi.web.head import is_authority

API_PREFIX = "/api/"
PREFLIGHT_CACHE_SECONDS = 7200
"""How long a browser may cache a preflight. No browser allows more."""

_ORIGIN = re.compile(r"https?://([^/*]+)")
_ALLOWED_METHODS = "GET, HEAD, POST"
_ALLOWED_HEADERS = "Authorization, Content-Encoding, Content-Type, Idempotency-Key, X-Request-ID"
_EXPOSED_HEADERS = (
    "Idempotency-Replayed, Location, RateLimit, RateLimit-Policy, Retry-After, Usage-Warning,"
    " X-Request-ID"
)


class Cors:
    """The origins whose pages may call the API."""

    def __init__(self, origins: frozenset[str]) -> None:
        self._origins = origins

    async def add_headers(self, request: Request, response: BaseHTTPResponse) -> None:
        """Add the origin that may read a response."""
        if not request.path.startswith(API_PREFIX):
            return
        response.headers["vary"] = "Origin"
        if origin := self._allowed_origin(request):
            response.headers["access-control-allow-origin"] = origin
            response.headers["access-control-expose-headers"] = _EXPOSED_HEADERS

    def answer_preflight(self, request: Request) -> HTTPResponse:
        """Answer OPTIONS; the response to an allowed origin lists what a request may send."""
        headers = {"Allow": f"{_ALLOWED_METHODS}, OPTIONS"}
        if self._allowed_origin(request) and "access-control-request-method" in request.headers:
            headers |= {
                "Access-Control-Allow-Methods": _ALLOWED_METHODS,
                "Access-Control-Allow-Headers": _ALLOWED_HEADERS,
                "Access-Control-Max-Age": str(PREFLIGHT_CACHE_SECONDS),
            }
        return HTTPResponse(status=204, headers=headers)

    def _allowed_origin(self, request: Request) -> str | None:
        origins = request.headers.getall("origin", [])
        return origins[0] if len(origins) == 1 and origins[0] in self._origins else None


def parse_origins(text: str) -> Cors | None:
    """Parse the setting; return None if it names no origin.

    Raises:
        ConfigError: an entry is not an origin.
    """
    origins = frozenset(entry.strip() for entry in text.split(",") if entry.strip())
    for origin in origins:
        match = _ORIGIN.fullmatch(origin)
        if match is None or origin != origin.lower() or not is_authority(match[1]):
            raise ConfigError(
                f"BUSYAPI_CORS_ORIGINS: {origin!r} is not an origin; write `https://host` or"
                " `https://host:port`, in lower case, without a path"
            )
    return Cors(origins) if origins else None
