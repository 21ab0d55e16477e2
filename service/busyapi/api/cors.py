"""Cross-origin requests: pages of named origins may call the API from a browser (Fetch standard).

Off unless origins are named. An answer names the origin that asked, never `*`: what a browser may
read here are patients' usages. A preflight has no credentials, so it is answered without any.
This is no protection: a request of any other origin is served, and its page cannot read the answer.
"""

import re

from sanic import Request
from sanic.response import BaseHTTPResponse, HTTPResponse

from busyapi.errors import ConfigError
from busyapi.web.head import is_authority

API_PREFIX = "/api/"
PREFLIGHT_CACHE_SECONDS = 7200
"""How long a browser may remember a preflight; no browser does so for longer."""

_ORIGIN = re.compile(r"https?://([^/*]+)")
_ALLOWED_METHODS = "GET, HEAD, POST"
_ALLOWED_HEADERS = "Authorization, Content-Encoding, Content-Type, Idempotency-Key, X-Request-ID"
_EXPOSED_HEADERS = "Idempotency-Replayed, Location, Retry-After, X-Request-ID"


class Cors:
    """The origins whose pages may call the API."""

    def __init__(self, origins: frozenset[str]) -> None:
        self._origins = origins

    async def add_headers(self, request: Request, response: BaseHTTPResponse) -> None:
        """Add to an answer which origin may read it."""
        if not request.path.startswith(API_PREFIX):
            return
        response.headers["vary"] = "Origin"
        if origin := self._allowed_origin(request):
            response.headers["access-control-allow-origin"] = origin
            response.headers["access-control-expose-headers"] = _EXPOSED_HEADERS

    def answer_preflight(self, request: Request) -> HTTPResponse:
        """Answer OPTIONS: to a preflight of a named origin, what it may send."""
        headers = {"Allow": f"{_ALLOWED_METHODS}, OPTIONS"}
        if self._allowed_origin(request) and "access-control-request-method" in request.headers:
            headers |= {
                "Access-Control-Allow-Methods": _ALLOWED_METHODS,
                "Access-Control-Allow-Headers": _ALLOWED_HEADERS,
                "Access-Control-Max-Age": str(PREFLIGHT_CACHE_SECONDS),
            }
        return HTTPResponse(status=204, headers=headers)

    def _allowed_origin(self, request: Request) -> str | None:
        sent = request.headers.getall("origin", [])
        return sent[0] if len(sent) == 1 and sent[0] in self._origins else None


def parse_origins(origins: str) -> Cors | None:
    """Make what the setting asks for, None when it names no origin.

    Raises:
        ConfigError: one of them is no origin.
    """
    named = frozenset(each.strip() for each in origins.split(",") if each.strip())
    for each in named:
        found = _ORIGIN.fullmatch(each)
        if found is None or each != each.lower() or not is_authority(found[1]):
            raise ConfigError(
                f"BUSYAPI_CORS_ORIGINS: {each!r} is no origin; write `https://host` or"
                " `https://host:port`, in lower case, without a path"
            )
    return Cors(named) if named else None
