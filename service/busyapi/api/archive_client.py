"""A client of the flushers' ports, which return usages that have left Redis."""

from http import HTTPStatus

import aiohttp
import structlog

from busyapi.errors import ConfigError, Refused, UsageExpired
from busyapi.ids import Seq
from busyapi.web.request_id import HEADER

log = structlog.get_logger()

REQUEST_TIMEOUT_SECONDS = 3.0


class ArchiveUnavailable(Refused):
    """The archive is unavailable."""


class ArchiveClient:
    """Reads archived usages from the flusher of each partition."""

    def __init__(self, urls: str, partitions: int) -> None:
        self._urls = _parse_urls(urls, partitions)
        self._session: aiohttp.ClientSession | None = None

    async def find_line(self, partition: int, seq: Seq, request_id: str) -> bytes | None:
        """Return an archived line, or None if no usage has this seq (a gap).

        The flusher may log the request's id.

        Raises:
            ArchiveUnavailable: the flusher does not answer.
            UsageExpired: retention has deleted the usage.
        """
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_SECONDS)
            self._session = aiohttp.ClientSession(timeout=timeout)
        url = f"{self._urls[partition]}/usages/{seq}"
        try:
            async with self._session.get(url, headers={HEADER: request_id}) as response:
                if response.status == HTTPStatus.OK:
                    return await response.read()
                if response.status == HTTPStatus.NOT_FOUND:
                    return None
                if response.status == HTTPStatus.GONE:
                    raise UsageExpired
                detail = f"it answered {response.status}"
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            detail = _describe_failure(error)
        log.warning("flusher_unreachable", partition=partition, detail=detail)
        raise ArchiveUnavailable

    async def close(self) -> None:
        """Close the connections."""
        if self._session:
            await self._session.close()


def _describe_failure(error: Exception) -> str:
    # There is no fallback to the last address, as for Redis: nothing in a flusher's answer shows
    # that it is not a flusher of another installation, which has taken the address over.
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the DNS lookup of {error.host} failed: {error.os_error.strerror}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection to {error.host}:{error.port}: {error.os_error.strerror}"
    if isinstance(error, TimeoutError):
        return f"no answer within {REQUEST_TIMEOUT_SECONDS:g} s, with the DNS lookup of its host"
    return type(error).__name__


def _parse_urls(text: str, partitions: int) -> list[str]:
    urls = [url.strip().rstrip("/") for url in text.split(",")]
    if len(urls) == 1:
        return [urls[0].replace("{partition}", str(p)) for p in range(partitions)]
    if len(urls) != partitions:
        raise ConfigError(
            "BUSYAPI_FLUSHER_URLS must be one URL with {partition}, or one for each partition"
        )
    return urls
