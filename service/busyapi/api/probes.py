"""Handlers of GET /livez and /readyz. A response has one line for each check."""

import asyncio
from collections.abc import Iterable
from time import monotonic
from typing import NamedTuple

from sanic import Request
from sanic.response import HTTPResponse

from busyapi.api.context import ApiContext, make_handler
from busyapi.stream.unchecked_settings import describe_trust
from busyapi.web.connection_refusal import ProbeResponses

_START_SECONDS = 2.0
"""Less than the timeout of the readiness probe in the chart."""
_START_CHECKS = 100
_START_ENDS = monotonic() + _START_SECONDS
TEXT = "text/plain; charset=utf-8"


class Check(NamedTuple):
    """One check of a probe."""

    name: str
    problem: str
    """Why it fails, "" if it does not."""
    success: str = "ok"


def render_checks(checks: Iterable[Check]) -> HTTPResponse:
    """Return 200 if no check has a problem, else 503."""
    rows = list(checks)
    body = "".join(f"{check.name}: {check.problem or check.success}\n" for check in rows)
    failed = any(check.problem for check in rows)
    return HTTPResponse(body, 503 if failed else 200, content_type=TEXT)


@make_handler
async def get_livez(_context: ApiContext, _request: Request) -> HTTPResponse:
    """Report that the event loop runs. Redis is not checked: a restart would not repair it."""
    return render_checks([Check("loop", "")])


@make_handler
async def get_readyz(context: ApiContext, _: Request) -> HTTPResponse:
    """Report whether this process should get traffic.

    Overload and an unavailable Redis do not fail this check: every pod would leave the Service at
    once, and devices would get the error of the ingress instead of this service's. A Redis that
    does not meet the durability tier does fail it if no partition gets usages: every write is
    refused until an operator changes a setting.

    While the process starts, a probe waits until it is ready: the next one comes a second later.
    """
    checks = check_readiness(context)
    for _check in range(_START_CHECKS):
        if monotonic() > _START_ENDS or not any(check.problem for check in checks):
            break
        await asyncio.sleep(_START_SECONDS / _START_CHECKS)
        checks = check_readiness(context)
    return render_checks(checks)


def check_readiness(context: ApiContext) -> list[Check]:
    """Return the readiness checks."""
    return [
        Check("draining", "draining" if context.draining else ""),
        Check("partition", _check_partition(context), _describe_missing(context)),
        _check_durability(context),
        *_check_credentials(context),
    ]


def make_overload_probes(context: ApiContext) -> ProbeResponses:
    """Return the probes' responses while the process is at its limit of connections."""
    return {
        b"/livez": lambda: render_checks([Check("loop", "")]),
        b"/readyz": lambda: render_checks(check_readiness(context)),
    }


def _check_partition(context: ApiContext) -> str:
    context.was_ready = context.was_ready or context.committers.is_ready
    if context.was_ready:
        return ""
    return str(context.committers.committers[0].last_error)


def _describe_missing(context: ApiContext) -> str:
    """Return "ok", and which partitions get no usages while others do, and why."""
    committers = context.committers.committers
    missing: dict[str, list[str]] = {}
    for committer in committers:
        if not committer.is_ready:
            missing.setdefault(str(committer.last_error), []).append(str(committer.partition))
    if sum(map(len, missing.values())) == len(committers):
        return "ok"
    reasons = (f"{', '.join(numbers)} ({reason})" for reason, numbers in missing.items())
    return f"ok, without {' and '.join(reasons)}" if missing else "ok"


def _check_credentials(context: ApiContext) -> list[Check]:
    """Fail until keys were fetched once: a new pod must not take traffic from one that has some."""
    problem = context.authorizer.problem
    return [Check("credentials", problem)] if problem else []


def _check_durability(context: ApiContext) -> Check:
    committers = context.committers.committers
    # Of several servers, one may be below the tier: the partitions of the others get the usages.
    errors = (None if context.committers.is_ready else c.durability_error for c in committers)
    problem = next((str(error) for error in errors if error), "")
    trusts = (committer.inspector.trust for committer in committers)
    return Check("durability", problem, describe_trust(next(filter(None, trusts), "")))
