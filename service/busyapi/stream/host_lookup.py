"""Addresses of the hosts of Redis, also while their lookup fails.

Most outages of a DNS leave the addresses as they are. So if the lookup of a host fails, or takes
long, the address that worked last is tried. It may belong to another server by now: `endpoint`
checks that server, and uses it only until the lookup works again.

At most one lookup of a host runs at a time. It occupies a thread until the system's resolver gives
up, which can take minutes. The threads are daemons: a process that stops does not wait for them,
and they are not those that the archive's files need.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from threading import Thread
from typing import Any, NamedTuple

LOOKUP_TIMEOUT_SECONDS = 2.0
FALLBACK_SECONDS = 0.5
"""After this time the last address is tried. New requests wait longer than this for a lost
connection (`connection_state`), so they are not refused."""
KEEP_SECONDS = 10.0
"""How long an unused result is kept. Longer than a committer waits between two checks."""
RETRY_SECONDS = 1.0
"""How soon a lookup that failed is repeated while its last address is in use."""


class LookupFailure(NamedTuple):
    """A lookup that failed."""

    host: str
    reason: str

    def __str__(self) -> str:
        return f"the DNS lookup of {self.host} failed: {self.reason}"


class HostAddresses(NamedTuple):
    """The addresses of a host. If its lookup failed, only the last one that worked, or none."""

    addresses: tuple[str, ...]
    failure: LookupFailure | None = None


class _Lookup(NamedTuple):
    started_at: float
    future: asyncio.Future[HostAddresses]


class HostLookup:
    """Looks up hosts, and remembers the last address of each that worked."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}
        self._lookups: dict[str, _Lookup] = {}

    def start_all(self, hosts: Iterable[str]) -> None:
        """Start the lookups of several hosts, so that `resolve` waits for all of them together."""
        for host in hosts:
            if not _is_address(host):
                self._start(host)

    async def resolve(self, host: str) -> HostAddresses:
        """Return the addresses of a host, or why the lookup failed and the last one that worked."""
        if _is_address(host):
            return HostAddresses((host,))
        last = self._last.get(host)
        seconds = FALLBACK_SECONDS if last else LOOKUP_TIMEOUT_SECONDS
        lookup = self._start(host)
        ends = lookup.started_at + seconds
        left = max(0.0, ends - asyncio.get_running_loop().time())
        if (await asyncio.wait({lookup.future}, timeout=left))[0]:
            self._forget(host, lookup)
            result = lookup.future.result()
        else:
            result = HostAddresses((), LookupFailure(host, f"no answer within {seconds:g} s"))
        return result._replace(addresses=(last,)) if result.failure and last else result

    def has_recovered(self, host: str) -> bool:
        """Return whether a host can be looked up again; if unknown, start a lookup for later."""
        lookup = self._start(host)
        if not lookup.future.done():
            return False
        if lookup.future.result().failure is None:
            return True
        if asyncio.get_running_loop().time() - lookup.started_at >= RETRY_SECONDS:
            self._forget(host, lookup)
            self._start(host)
        return False

    def remember(self, host: str, address: str) -> None:
        """Remember an address that worked."""
        if host != address:
            self._last[host] = address

    def _start(self, host: str) -> _Lookup:
        loop = asyncio.get_running_loop()
        lookup = self._lookups.get(host)
        if lookup is None or lookup.future.get_loop() is not loop:
            lookup = _Lookup(loop.time(), loop.create_future())
            Thread(target=_run_lookup, args=(host, lookup.future), name="dns", daemon=True).start()
            forget = partial(loop.call_later, KEEP_SECONDS, self._forget, host, lookup)
            lookup.future.add_done_callback(lambda _: forget())
            self._lookups[host] = lookup
        return lookup

    def _forget(self, host: str, lookup: _Lookup) -> None:
        if self._lookups.get(host) is lookup:
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
    return _describe_alert(error)


def describe_close(error: BaseException | None, *, is_unanswered_tls: bool) -> str:
    """Return why a connection was closed.

    With TLS 1.3 a server checks the client certificate only after the handshake. Its alert takes
    the place of the first reply, and is lost if the reset of the connection overtakes it.
    """
    reason = _describe_alert(error) if error else "it closed the connection"
    if is_unanswered_tls and "BUSYAPI_REDIS_CERT_FILE" not in reason:
        reason += (
            " before its first reply; a server that asks for a client certificate"
            " (BUSYAPI_REDIS_CERT_FILE), or refuses it, does this"
        )
    return reason


def _describe_alert(error: BaseException) -> str:
    """Return what a server says of the client certificate; if nothing, the error's type."""
    reason = str(getattr(error, "reason", None) or "")
    if "CERTIFICATE_REQUIRED" in reason:
        return "it asks for a client certificate (BUSYAPI_REDIS_CERT_FILE)"
    if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
        alert = reason.partition("ALERT_")[2].lower().replace("_", " ")
        return f"it refuses the client certificate (BUSYAPI_REDIS_CERT_FILE): {alert}"
    return type(error).__name__


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _run_lookup(host: str, future: asyncio.Future[HostAddresses]) -> None:
    result = _look_up(host)
    with suppress(RuntimeError):  # the loop is closed: the process stops
        future.get_loop().call_soon_threadsafe(_set_result, future, result)


def _set_result(future: asyncio.Future[HostAddresses], result: HostAddresses) -> None:
    if not future.done():
        future.set_result(result)


def _look_up(host: str) -> HostAddresses:
    try:
        infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:  # includes `gaierror`
        return HostAddresses((), LookupFailure(host, error.strerror or type(error).__name__))
    except ValueError:  # includes `UnicodeError`
        return HostAddresses((), LookupFailure(host, "the name is invalid"))
    return HostAddresses(tuple(dict.fromkeys(_to_text(info[4]) for info in infos)))


def _to_text(address: tuple[Any, ...]) -> str:
    """Return an address as text; a link-local one of IPv6 has its interface."""
    scope = address[3] if len(address) > 3 else 0  # noqa: PLR2004 - IPv6 has four members
    return f"{address[0]}%{scope}" if scope else str(address[0])
