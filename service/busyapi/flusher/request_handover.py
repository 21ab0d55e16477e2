"""`busyapi hand-over`: an operator asks the flusher to replace the primary by another holder."""

import asyncio
from time import monotonic

from busyapi.errors import BusyapiError, ConfigError, RedisUnavailable
from busyapi.output import flush_output, write_output
from busyapi.stream.connection import ServerError
from busyapi.stream.endpoint import Endpoint

REQUEST_SECONDS = 60
"""How long the flusher may take: the key expires, so that it does not act on an old request."""
POLL_SECONDS = 0.1
PROGRESS_SECONDS = 5.0


class HandoverFailed(BusyapiError):
    """The primary is the same as before."""


def request_handover(endpoint: Endpoint, tier: str) -> None:
    """Ask for another primary, and wait until there is one.

    Raises:
        ConfigError: the flusher does not choose the primary.
        HandoverFailed: it has not chosen another one.
        RedisUnavailable: there is no primary.
    """
    if tier != "replicated" or endpoint.mode != "sentinel":
        raise ConfigError(
            "hand-over needs BUSYAPI_DURABILITY=replicated and Sentinels: elsewhere the flusher"
            " does not choose the primary"
        )
    asyncio.run(_hand_over(endpoint))


async def _hand_over(endpoint: Endpoint) -> None:
    key_names = endpoint.decider_keys
    connection = await endpoint.connect(key_names.partition)
    old = connection.address
    try:
        await connection.execute("SET", key_names.handover, old, "EX", REQUEST_SECONDS)
    except ServerError as error:
        raise HandoverFailed(f"Redis at {old} refuses the request: {error}") from None
    finally:
        await connection.close()
    write_output(f"asked the flusher of partition {key_names.partition} to replace {old}\n")
    started = monotonic()
    next_progress = started + PROGRESS_SECONDS
    while (now := monotonic()) < started + REQUEST_SECONDS:
        if new := await _find_other(endpoint, old):
            write_output(f"{new} is the primary\n")
            return
        if now >= next_progress:
            next_progress = now + PROGRESS_SECONDS
            write_output(f"{old} is still the primary after {now - started:.0f} s\n")
        flush_output()
        await asyncio.sleep(POLL_SECONDS)
    raise HandoverFailed(
        f"{old} is still the primary: see the log event handover_refused of the flusher of"
        f" partition {key_names.partition}, and its /readyz"
    )


async def _find_other(endpoint: Endpoint, old: str) -> str:
    """Return the address of another primary, "" if there is none yet."""
    try:
        connection = await endpoint.connect(endpoint.first_partition)
        try:
            info = await connection.execute("INFO", "replication")
        finally:
            await connection.close()
    except (RedisUnavailable, ServerError):
        return ""
    is_primary = b"role:master" in info
    return connection.address if is_primary and connection.address != old else ""
