"""GET /livez and /readyz: a line for each check."""

from collections.abc import Iterable

from sanic import Request
from sanic.response import HTTPResponse

from busyapi.api.service import Service
from busyapi.web.refusal import Probes

TEXT = "text/plain; charset=utf-8"


def report(checks: Iterable[tuple[str, str]]) -> HTTPResponse:
    """Answer 200 if no check has a trouble, else 503."""
    rows = list(checks)
    body = "".join(f"{name}: {trouble or 'ok'}\n" for name, trouble in rows)
    failed = any(trouble for _, trouble in rows)
    return HTTPResponse(body, 503 if failed else 200, content_type=TEXT)


async def livez(request: Request) -> HTTPResponse:
    """Say that the event loop turns. Redis has no part in this: a restart would not mend it."""
    return request.app.ctx.service.done(request, report([("loop", "")]))  # type: ignore[no-any-return]


async def readyz(request: Request) -> HTTPResponse:
    """Say whether devices should be sent here.

    Not for overload and not for a Redis that went away: every pod would leave the Service at
    once, and devices would get the ingress's error instead of ours. A Redis that is too weak
    for the tier does fail it: nothing will be accepted until someone changes it.
    """
    service: Service = request.app.ctx.service
    return service.done(request, report(readiness(service)))


def readiness(service: Service) -> list[tuple[str, str]]:
    """List the checks of readiness, each with its trouble or ""."""
    return [
        ("draining", "draining" if service.draining else ""),
        ("partition", _partition_trouble(service)),
        ("durability", _durability_trouble(service)),
    ]


def unserved_probes(service: Service) -> Probes:
    """Return the answers to probes of a process that has as many connections as it may have."""
    return {
        b"/livez": lambda: report([("loop", "")]),
        b"/readyz": lambda: report(readiness(service)),
    }


def _partition_trouble(service: Service) -> str:
    service.seeded_once = service.seeded_once or service.lanes.ready
    if service.seeded_once:
        return ""
    return str(service.lanes.lanes[0].trouble)


def _durability_trouble(service: Service) -> str:
    return next((str(lane.weak) for lane in service.lanes.lanes if lane.weak), "")
