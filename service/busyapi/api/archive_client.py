"""The read door of the flushers: usages that have left the buffer."""

from http import HTTPStatus

import aiohttp

from busyapi.errors import ConfigError, Refused, UsageExpired
from busyapi.ids import Seq
from busyapi.web.request_id import HEADER

REQUEST_TIMEOUT_SECONDS = 3.0


class ArchiveUnavailable(Refused):
    """The archive is unavailable."""


class ArchiveClient:
    """Asks the flusher of a partition."""

    def __init__(self, urls: str, partitions: int) -> None:
        self._urls = _parse_urls(urls, partitions)
        self._session: aiohttp.ClientSession | None = None

    async def find_line(self, partition: int, seq: Seq, request_id: str) -> bytes | None:
        """Give an archived line, None where there is none (a gap); the flusher may log the id.

        Raises:
            ArchiveUnavailable: the flusher does not answer.
            UsageExpired: retention has passed.
        """
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_SECONDS)
            self._session = aiohttp.ClientSession(timeout=timeout)
        url = f"{self._urls[partition]}/usages/{seq}"
        try:
            async with self._session.get(url, headers={HEADER: request_id}) as answer:
                if answer.status == HTTPStatus.OK:
                    return await answer.read()
                if answer.status == HTTPStatus.NOT_FOUND:
                    return None
                if answer.status == HTTPStatus.GONE:
                    raise UsageExpired
        except (TimeoutError, aiohttp.ClientError, OSError):
            pass
        raise ArchiveUnavailable

    async def close(self) -> None:
        """Close the connections."""
        if self._session:
            await self._session.close()


def _parse_urls(urls: str, partitions: int) -> list[str]:
    each = [url.strip().rstrip("/") for url in urls.split(",")]
    if len(each) == 1:
        return [each[0].replace("{partition}", str(p)) for p in range(partitions)]
    if len(each) != partitions:
        raise ConfigError(
            "BUSYAPI_FLUSHER_URLS must be one URL with {partition}, or one for each partition"
        )
    return each
