"""Handlers of GET /livez and /readyz. A response has one line for each check."""

import asyncio
from collections.abc import Iterable
from time import monotonic

from sanic import Request
from sanic.response import HTTPResponse

from busyapi.api.context import ApiContext, make_handler
from busyapi.web.connection_refusal import ProbeResponses

_START_SECONDS = 2.0
"""Less than the timeout of the readiness probe in the chart."""
_START_CHECKS = 100
_START_ENDS = monotonic() + _START_SECONDS
TEXT = "text/plain; charset=utf-8"


def render_checks(checks: Iterable[tuple[str, str]]) -> HTTPResponse:
    """Return 200 if no check has a problem, else 503."""
    rows = list(checks)
    body = "".join(f"{name}: {problem or 'ok'}\n" for name, problem in rows)
    failed = any(problem for _, problem in rows)
    return HTTPResponse(body, 503 if failed else 200, content_type=TEXT)


@make_handler
async def get_livez(_context: ApiContext, _request: Request) -> HTTPResponse:
    """Report that the event loop runs. Redis is not checked: a restart would not repair it."""
    return render_checks([("loop", "")])


@make_handler
async def get_readyz(context: ApiContext, _: Request) -> HTTPResponse:
    """Report whether this process should get traffic.

    Overload and an unavailable Redis do not fail this check: every pod would leave the Service at
    once, and devices would get the error of the ingress instead of this service's. A Redis that
    does not meet the durability tier does fail it: every write is refused until an operator changes
    a setting.

    While the process starts, a probe waits until it is ready: the next one comes a second later.
    """
    checks = check_readiness(context)
    for _check in range(_START_CHECKS):
        if monotonic() > _START_ENDS or not any(problem for _, problem in checks):
            break
        await asyncio.sleep(_START_SECONDS / _START_CHECKS)
        checks = check_readiness(context)
    return render_checks(checks)


def check_readiness(context: ApiContext) -> list[tuple[str, str]]:
    """Return the readiness checks, each with its problem or ""."""
    return [
        ("draining", "draining" if context.draining else ""),
        ("partition", _check_partition(context)),
        ("durability", _check_durability(context)),
        *_check_credentials(context),
    ]


def make_overload_probes(context: ApiContext) -> ProbeResponses:
    """Return the probes' responses while the process is at its limit of connections."""
    return {
        b"/livez": lambda: render_checks([("loop", "")]),
        b"/readyz": lambda: render_checks(check_readiness(context)),
    }


def _check_partition(context: ApiContext) -> str:
    context.was_ready = context.was_ready or context.committers.is_ready
    if context.was_ready:
        return ""
    return str(context.committers.committers[0].last_error)


def _check_credentials(context: ApiContext) -> list[tuple[str, str]]:
    """Fail until keys were fetched once: a new pod must not take traffic from one that has some."""
    problem = context.authorizer.problem
    return [("credentials", problem)] if problem else []


def _check_durability(context: ApiContext) -> str:
    return next(
        (
            str(committer.durability_error)
            for committer in context.committers.committers
            if committer.durability_error
        ),
        "",
    )
