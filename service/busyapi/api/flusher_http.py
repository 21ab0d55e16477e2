"""Requests to the flushers' port, with aiohttp.

The import of aiohttp takes 8 MiB and a tenth of a second of CPU. So `archive_client` imports this
module with its first request: a process that only takes usages never needs it.
"""

from collections.abc import Mapping
from ssl import SSLContext
from typing import NamedTuple

import aiohttp

REQUEST_TIMEOUT_SECONDS = 3.0


class Reply(NamedTuple):
    """A flusher's reply, whatever its status."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class FlusherHttp:
    """The connections of one process."""

    def __init__(self, tls: SSLContext | None) -> None:
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_SECONDS)
        connector = aiohttp.TCPConnector(ssl=tls or True)
        self._session = aiohttp.ClientSession(timeout=timeout, connector=connector)

    async def exchange(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None
    ) -> Reply:
        """Send a request, and return the reply.

        Raises:
            ConnectionError: no reply arrived; the text says why.
        """
        try:
            try:
                return await self._exchange_once(method, url, headers, body)
            except aiohttp.ServerDisconnectedError:
                # The flusher closed an idle connection. An entry that is recorded twice does no
                # harm.
                return await self._exchange_once(method, url, headers, body)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise ConnectionError(_describe_failure(error)) from None

    async def _exchange_once(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None
    ) -> Reply:
        async with self._session.request(method, url, headers=headers, data=body) as response:
            return Reply(response.status, response.headers, await response.read())

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()


def _describe_failure(error: Exception) -> str:
    # There is no fallback to the last address, as for Redis: nothing in a flusher's answer shows
    # that it is not a flusher of another installation, which has taken the address over.
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the DNS lookup of {error.host} failed: {error.os_error.strerror}"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        reason = getattr(error.certificate_error, "verify_message", "it is not trusted")
        return f"the certificate of {error.host}:{error.port} is refused: {reason}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection to {error.host}:{error.port}: {error.os_error.strerror}"
    if isinstance(error, TimeoutError):
        return f"no answer within {REQUEST_TIMEOUT_SECONDS:g} s, with the DNS lookup of its host"
    return type(error).__name__
