"""The headers RateLimit-Policy and RateLimit of draft-ietf-httpapi-ratelimit-headers-11.

    RateLimit-Policy: "credential";q=100;w=2;qu="usages"
    RateLimit: "credential";r=98;t=1

A full bucket has `q` usages, and fills in `w` seconds. It has `r` now, and is full in `t` seconds.
After a refusal `r` is 0, and `t` the time of Retry-After.
"""

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

from busyapi.api.rate_limit import Excess

POLICY, STATE = "ratelimit-policy", "ratelimit"


class Limit(NamedTuple):
    """A limit of a client, as its answers show it."""

    name: bytes
    policy: bytes
    """As `render_policy` returns it."""
    remaining: int
    seconds: int
    """Until the bucket is full."""


def render_policy(name: str, rate: float, burst: float) -> bytes:
    """Return what never changes about a limit."""
    return f'"{name}";q={int(burst)};w={max(1, round(burst / rate))};qu="usages"'.encode()


def describe_bucket(name: str, policy: bytes, level: float, rate: float, burst: float) -> Limit:
    """Return a limit by the level of its bucket."""
    level = min(burst, max(0.0, level))
    return Limit(name.encode(), policy, int(level), ceil((burst - level) / rate))


def make_headers(limits: Sequence[Limit], excess: Excess | None = None) -> dict[str, str]:
    """Return the headers; `excess` is the limit that refused a request."""
    if excess:
        refused = excess.policy.encode()
        limits = [
            entry._replace(remaining=0, seconds=excess.retry_after)
            if entry.name == refused
            else entry
            for entry in limits
        ]
    policies, states = _render(limits)
    return {POLICY: policies.decode(), STATE: states.decode()}


def render_lines(limits: Sequence[Limit]) -> bytes:
    """Return the headers as they are sent, each after a line end."""
    return b"\r\nratelimit-policy: %b\r\nratelimit: %b" % _render(limits)


def _render(limits: Sequence[Limit]) -> tuple[bytes, bytes]:
    policies = b", ".join([limit.policy for limit in limits])
    states = [b'"%b";r=%d;t=%d' % (name, left, seconds) for name, _, left, seconds in limits]
    return policies, b", ".join(states)
