"""GET /livez and /readyz: a line for each check."""

from collections.abc import Iterable

from sanic import Request
from sanic.response import HTTPResponse

from busyapi.api.context import ApiContext
from busyapi.web.connection_refusal import ProbeResponses

TEXT = "text/plain; charset=utf-8"


def render_checks(checks: Iterable[tuple[str, str]]) -> HTTPResponse:
    """Answer 200 if no check has a trouble, else 503."""
    rows = list(checks)
    body = "".join(f"{name}: {trouble or 'ok'}\n" for name, trouble in rows)
    failed = any(trouble for _, trouble in rows)
    return HTTPResponse(body, 503 if failed else 200, content_type=TEXT)


async def livez(request: Request) -> HTTPResponse:
    """Say that the event loop turns. Redis has no part in this: a restart would not mend it."""
    return request.app.ctx.context.record_response(request, render_checks([("loop", "")]))  # type: ignore[no-any-return]


async def readyz(request: Request) -> HTTPResponse:
    """Say whether devices should be sent here.

    Not for overload and not for a Redis that went away: every pod would leave the Service at
    once, and devices would get the ingress's error instead of ours. A Redis that is too weak
    for the tier does fail it: nothing will be accepted until someone changes it.
    """
    context: ApiContext = request.app.ctx.context
    return context.record_response(request, render_checks(check_readiness(context)))


def check_readiness(context: ApiContext) -> list[tuple[str, str]]:
    """List the checks of readiness, each with its trouble or ""."""
    return [
        ("draining", "draining" if context.draining else ""),
        ("partition", _check_partition(context)),
        ("durability", _check_durability(context)),
    ]


def make_overload_probes(context: ApiContext) -> ProbeResponses:
    """Return the answers to probes of a process that has as many connections as it may have."""
    return {
        b"/livez": lambda: render_checks([("loop", "")]),
        b"/readyz": lambda: render_checks(check_readiness(context)),
    }


def _check_partition(context: ApiContext) -> str:
    context.seeded_once = context.seeded_once or context.committers.is_ready
    if context.seeded_once:
        return ""
    return str(context.committers.committers[0].last_error)


def _check_durability(context: ApiContext) -> str:
    return next(
        (
            str(committer.durability_error)
            for committer in context.committers.committers
            if committer.durability_error
        ),
        "",
    )
