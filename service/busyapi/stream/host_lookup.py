"""Addresses of the hosts of Redis, also while their lookup fails.

Most outages of a DNS leave the addresses as they are. So if the lookup of a host fails, or takes
long, the address that worked last is tried. It may belong to another server by now: `endpoint` uses
that server only if it holds the record of the partition.

At most one lookup of a host runs at a time. It occupies a thread until the system's resolver gives
up, which takes longer than a connection may: without this limit, retries would use up all threads.
"""

import asyncio
import os
import socket
import ssl
from ipaddress import ip_address
from typing import Any, NamedTuple

from busyapi.errors import RedisUnavailable

LOOKUP_TIMEOUT_SECONDS = 2.0
FALLBACK_SECONDS = 0.5
"""After this time the last address is tried. New requests wait longer than this for a lost
connection (`connection_state`), so they are not refused."""
KEEP_SECONDS = 5.0
"""How long the result of a lookup that ended too late is kept, for the next try to use it."""


class HostAddresses(NamedTuple):
    """The addresses of a host."""

    addresses: tuple[str, ...]
    failure: str = ""
    """Why the lookup failed: then the only address is the last one that worked. "" if it did not
    fail."""


class HostLookup:
    """Looks up hosts, and remembers the last address of each that worked."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}
        self._lookups: dict[str, asyncio.Task[HostAddresses]] = {}

    async def resolve(self, host: str) -> HostAddresses:
        """Return the addresses of a host, or the last one that worked.

        Raises:
            RedisUnavailable: the lookup failed, and no address has worked yet.
        """
        if _is_address(host):
            return HostAddresses((host,))
        last = self._last.get(host)
        seconds = FALLBACK_SECONDS if last else LOOKUP_TIMEOUT_SECONDS
        task = self._start(host)
        if (await asyncio.wait({task}, timeout=seconds))[0]:
            self._forget(host, task)
            result = task.result()
        else:
            result = HostAddresses((), f"no answer within {seconds:g} s")
        if result.addresses:
            return result
        failure = f"the DNS lookup of {host} failed: {result.failure}"
        if last is None:
            raise RedisUnavailable(f"no connection to Redis: {failure}")
        return HostAddresses((last,), failure)

    def remember(self, host: str, address: str) -> None:
        """Remember an address that worked."""
        self._last[host] = address

    def _start(self, host: str) -> asyncio.Task[HostAddresses]:
        loop = asyncio.get_running_loop()
        task = self._lookups.get(host)
        if task is None or task.get_loop() is not loop:
            task = self._lookups[host] = loop.create_task(_look_up(host))
            task.add_done_callback(
                lambda done: loop.call_later(KEEP_SECONDS, self._forget, host, done)
            )
        return task

    def _forget(self, host: str, task: asyncio.Task[HostAddresses]) -> None:
        if self._lookups.get(host) is task:
            del self._lookups[host]


def describe_failure(error: BaseException, timeout_seconds: float) -> str:
    """Return why a connection failed, in words where the system has some."""
    if isinstance(error, TimeoutError) and not error.errno:
        return f"no answer within {timeout_seconds:g} s"
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is refused ({cause.verify_message})"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, OSError) and error.errno and not isinstance(error, ssl.SSLError):
        return os.strerror(error.errno)
    return type(error).__name__


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


async def _look_up(host: str) -> HostAddresses:
    """Look up a host; never raises, because nothing may wait for the result any more."""
    try:
        infos = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        return HostAddresses((), error.strerror or "unknown reason")
    except UnicodeError:
        return HostAddresses((), "the name is invalid")
    except OSError as error:
        return HostAddresses((), error.strerror or type(error).__name__)
    return HostAddresses(tuple(dict.fromkeys(_to_text(info[4]) for info in infos)))


def _to_text(address: tuple[Any, ...]) -> str:
    """Return an address as text; a link-local one of IPv6 has its interface."""
    scope = address[3] if len(address) > 3 else 0  # noqa: PLR2004 - IPv6 has four members
    return f"{address[0]}%{scope}" if scope else str(address[0])
