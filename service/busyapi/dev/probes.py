"""Probes of the children over HTTP, and of Valkey over its own protocol."""

import asyncio
import json
from http import HTTPStatus
from typing import NamedTuple

LOOPBACK = "127.0.0.1"
PROBE_SECONDS = 2.0
MAX_REPLY_BYTES = 1 << 20
COMMITTERS_READY = "busyapi_committers_ready{"
HALTED = "busyapi_halted{"

NO_REPLY = "it does not answer"


class Readiness(NamedTuple):
    """The outcome of one probe."""

    reason: str = ""
    """Why the child is not ready, "" if it is."""
    is_halted: bool = False
    """It continues only after an operator has made a decision."""
    is_loading: bool = False
    """It reads its data, which takes as long as there is data."""


async def fetch(port: int, path: str, address: str = LOOPBACK) -> tuple[int, str]:
    """GET a path from a process on this machine; return status 0 if it does not answer."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"
    try:
        reply = await _exchange(port, request, until_end=True, address=address)
        head, _, body = reply.partition("\r\n\r\n")
        return int(head.split(" ", 2)[1]), body
    except (OSError, TimeoutError, ValueError, IndexError):
        return 0, NO_REPLY


async def probe_valkey(port: int) -> Readiness:
    """Ping a Valkey; it refuses while it loads its append-only file."""
    try:
        reply = await _exchange(port, "PING\r\n", until_end=False)
    except (OSError, TimeoutError):
        return Readiness(NO_REPLY)
    if reply.startswith("+PONG"):
        return Readiness()
    return Readiness(reply.strip().removeprefix("-"), is_loading=reply.startswith("-LOADING"))


async def probe_nothing() -> Readiness:
    """Count a child without a port as ready; a restart is printed."""
    return Readiness()


async def probe_flusher(port: int) -> Readiness:
    """Probe a flusher; its metrics say whether it is halted."""
    status, body = await fetch(port, "/readyz")
    if status == HTTPStatus.OK:
        return Readiness()
    reason = _failed_checks(body).removeprefix("flusher: ")
    _, metrics = await fetch(port, "/metrics")
    return Readiness(reason, is_halted=_sum_samples(metrics, HALTED) > 0)


async def probe_api(address: str, port: int, metrics_port: int, partitions: int) -> Readiness:
    """Probe one API process.

    Any of the processes that share `port` may answer /readyz, so the committers of this one are
    counted on its metrics port, which it has for itself.
    """
    status, metrics = await fetch(metrics_port, "/metrics", address)
    if status != HTTPStatus.OK:
        return Readiness(NO_REPLY)
    ready = _sum_samples(metrics, COMMITTERS_READY)
    status, body = await fetch(port, "/readyz", address)
    if status != HTTPStatus.OK:
        return Readiness(_failed_checks(body))
    return Readiness("" if ready == partitions else f"{ready:g} of {partitions} partitions")


async def fetch_counts(address: str, port: int) -> dict[str, int] | None:
    """Return the counts of the API, None if it does not give them."""
    status, body = await fetch(port, "/api/usages/count", address)
    if status != HTTPStatus.OK:
        return None
    counts: dict[str, int] = json.loads(body)
    return counts


def _sum_samples(metrics: str, start: str) -> float:
    return sum(float(line.split()[-1]) for line in metrics.splitlines() if line.startswith(start))


def _failed_checks(body: str) -> str:
    lines = [line for line in body.splitlines() if line and not line.endswith(": ok")]
    return "; ".join(lines)


async def _exchange(port: int, request: str, *, until_end: bool, address: str = LOOPBACK) -> str:
    async with asyncio.timeout(PROBE_SECONDS):
        reader, writer = await asyncio.open_connection(address, port, limit=MAX_REPLY_BYTES)
        try:
            writer.write(request.encode())
            reply = await reader.read() if until_end else await reader.readline()
        finally:
            writer.close()
        return reply.decode(errors="replace")
