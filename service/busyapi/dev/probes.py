"""Is a child ready? Each answer is "" or why not."""

import asyncio
import json
from http import HTTPStatus

ANSWER_SECONDS = 2.0
ANSWER_BYTES = 1 << 20
LANES = "busyapi_lanes_ready{"


async def get(port: int, path: str) -> tuple[int, str]:
    """Ask a process of this machine over HTTP; status 0 when it does not answer."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"
    try:
        answer = await _exchange(port, request, until_end=True)
        head, _, body = answer.partition("\r\n\r\n")
        return int(head.split(" ", 2)[1]), body
    except (OSError, TimeoutError, ValueError, IndexError):
        return 0, "it does not answer"


async def valkey_trouble(port: int) -> str:
    """Ask a Valkey; it refuses while it reads its file."""
    try:
        answer = await _exchange(port, "PING\r\n", until_end=False)
    except (OSError, TimeoutError):
        return "it does not answer"
    return "" if answer.startswith("+PONG") else answer.strip()


async def flusher_trouble(port: int) -> str:
    """Ask a flusher."""
    status, body = await get(port, "/readyz")
    return "" if status == HTTPStatus.OK else _failed_checks(body)


async def api_trouble(port: int, metrics_port: int, partitions: int) -> str:
    """Ask an API process.

    Any of those that share the port may answer /readyz, so this one's lanes are counted on the
    port that is its own.
    """
    status, body = await get(metrics_port, "/metrics")
    if status != HTTPStatus.OK:
        return "it does not answer"
    lines = body.splitlines()
    ready = sum(float(line.split()[-1]) for line in lines if line.startswith(LANES))
    status, body = await get(port, "/readyz")
    if status != HTTPStatus.OK:
        return _failed_checks(body)
    return "" if ready == partitions else f"{ready:g} of {partitions} partitions"


async def counts(port: int) -> dict[str, int] | None:
    """Ask the API for its counts; None when it does not give them."""
    status, body = await get(port, "/api/usages/count")
    if status != HTTPStatus.OK:
        return None
    found: dict[str, int] = json.loads(body)
    return found


def _failed_checks(body: str) -> str:
    lines = [line for line in body.splitlines() if line and not line.endswith(": ok")]
    return "; ".join(lines)


async def _exchange(port: int, request: str, *, until_end: bool) -> str:
    async with asyncio.timeout(ANSWER_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=ANSWER_BYTES)
        try:
            writer.write(request.encode())
            answer = await reader.read() if until_end else await reader.readline()
        finally:
            writer.close()
        return answer.decode(errors="replace")
