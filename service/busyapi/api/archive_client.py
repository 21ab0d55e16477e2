"""A client of the flushers' ports for the API: archived usages, and the audit trail."""

import asyncio
from http import HTTPStatus
from importlib import import_module
from ssl import SSLContext
from typing import TYPE_CHECKING

import structlog

from busyapi.audit.record import AuditEntry, encode_entry
from busyapi.errors import (
    AuditUnavailable,
    BusyapiError,
    ConfigError,
    QueriesBusy,
    Refused,
    UsageExpired,
)
from busyapi.ids import Seq
from busyapi.web.internal_headers import AUDIT_HEADER, AUDITED_HEADER
from busyapi.web.request_id import HEADER
from busyapi.web.shared_secret import SharedSecret

if TYPE_CHECKING:
    from busyapi.api.flusher_http import FlusherHttp, Reply

log = structlog.get_logger()

RETRIED_STATUSES = frozenset({401, 403, 404, 408, 429})
"""Client errors that are about the sender, the address or the moment, not about the entries."""


class ArchiveUnavailable(Refused):
    """Archived usages are unavailable. Try again later."""


class EntriesRefused(BusyapiError):
    """The flusher refuses entries of the audit trail, and would refuse them again."""


class ArchiveClient:
    """Asks the flusher of each partition."""

    def __init__(
        self,
        urls: str,
        partitions: int,
        secret: SharedSecret | None = None,
        tls: SSLContext | None = None,
    ) -> None:
        self._urls, self._template = parse_urls(urls, partitions), urls
        self._secret, self._tls = secret, tls
        self._http: FlusherHttp | None = None

    async def find_line(
        self, partition: int, seq: Seq, request_id: str, entry: AuditEntry | None = None
    ) -> bytes | None:
        """Return an archived line, or None if no usage has this seq (a gap).

        The flusher may log the request's id. If an entry for the audit trail is passed, the flusher
        has recorded it when this returns, and also when it raises UsageExpired.

        Raises:
            ArchiveUnavailable: the flusher does not answer.
            AuditUnavailable: the entry is not recorded.
            UsageExpired: retention has deleted the usage.
        """
        headers = {HEADER: request_id}
        if entry:
            headers[AUDIT_HEADER] = encode_entry(entry).decode()
        reply = await self._send("GET", partition, f"/usages/{seq}", headers)
        if reply.status in {HTTPStatus.OK, HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
            if entry and AUDITED_HEADER not in reply.headers:
                _log_failure(partition, "its version records no reads")
                raise AuditUnavailable
            if reply.status == HTTPStatus.GONE:
                raise UsageExpired
            return reply.body if reply.status == HTTPStatus.OK else None
        _log_failure(partition, f"it answered {reply.status}")
        if entry and reply.headers.get(AUDITED_HEADER) == "no":
            raise AuditUnavailable
        raise ArchiveUnavailable

    async def read_page(self, partition: int, query: bytes, request_id: str) -> bytes:
        """Return a flusher's answer to a query.

        Raises:
            ArchiveUnavailable: it does not answer, or cannot read its archive.
            QueriesBusy: it reads for others.
        """
        reply = await self._send("POST", partition, "/pages", {HEADER: request_id}, query)
        if reply.status == HTTPStatus.TOO_MANY_REQUESTS:
            raise QueriesBusy
        if reply.status != HTTPStatus.OK:
            _log_failure(partition, f"it answered {reply.status} to a query")
            raise ArchiveUnavailable
        return reply.body

    async def record_query(self, partition: int, query: bytes) -> None:
        """Put the record of a query on the disk of a flusher.

        Raises:
            AuditUnavailable: it may not be recorded.
        """
        try:
            reply = await self._send("POST", partition, "/audit/query", {}, query)
        except ArchiveUnavailable:
            raise AuditUnavailable from None
        if reply.status != HTTPStatus.NO_CONTENT:
            _log_failure(partition, f"it answered {reply.status} to the record of a query")
            raise AuditUnavailable

    async def record(self, partition: int, entries: bytes) -> None:
        """Put lines of entries on the disk of a flusher.

        Raises:
            AuditUnavailable: they may not be recorded.
            EntriesRefused: none is recorded, because at least one of them is invalid.
        """
        try:
            reply = await self._send("POST", partition, "/audit", {}, entries)
        except ArchiveUnavailable:
            raise AuditUnavailable from None
        if reply.status != HTTPStatus.NO_CONTENT:
            _log_failure(partition, f"it answered {reply.status} to entries of the audit trail")
            if 400 <= reply.status < 500 and reply.status not in RETRIED_STATUSES:  # noqa: PLR2004
                raise EntriesRefused(f"the flusher answered {reply.status}")
            raise AuditUnavailable

    async def close(self) -> None:
        """Close the connections."""
        if self._http:
            await self._http.close()

    async def _send(
        self,
        method: str,
        partition: int,
        path: str,
        headers: dict[str, str],
        body: bytes | None = None,
    ) -> "Reply":
        """Send a request, with each secret in turn until the flusher accepts one."""
        url = self._url_of(partition) + path
        secrets = self._secret.value if self._secret else []
        try:
            http = self._http or await self._open_http()
            reply = await http.exchange(method, url, headers | _authorize(secrets[:1]), body)
            for secret in secrets[1:]:
                if reply.status != HTTPStatus.UNAUTHORIZED:
                    break
                reply = await http.exchange(method, url, headers | _authorize([secret]), body)
        except OSError as error:  # also from the import, if no file can be opened
            _log_failure(partition, str(error))
            raise ArchiveUnavailable from None
        return reply

    def _url_of(self, partition: int) -> str:
        if partition >= len(self._urls):  # a partition that has left
            if "{partition}" not in self._template:
                _log_failure(partition, "BUSYAPI_FLUSHER_URLS does not name it")
                raise ArchiveUnavailable
            self._urls = parse_urls(self._template, partition + 1)
        return self._urls[partition]

    async def _open_http(self) -> "FlusherHttp":
        # In a thread: other requests need not wait for the import.
        module = await asyncio.to_thread(import_module, "busyapi.api.flusher_http")
        if self._http is None:  # another request may have opened it meanwhile
            self._http = module.FlusherHttp(self._tls)
        return self._http


def _authorize(secrets: list[str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {secrets[0]}"} if secrets else {}


def _log_failure(partition: int, detail: str) -> None:
    log.warning("flusher_unreachable", partition=partition, detail=detail)


def parse_urls(text: str, partitions: int) -> list[str]:
    """Return the URL of each partition. A list may also name partitions that have left.

    Raises:
        ConfigError: there are too few.
    """
    urls = [url.strip().rstrip("/") for url in text.split(",")]
    if len(urls) == 1:
        return [urls[0].replace("{partition}", str(p)) for p in range(partitions)]
    if len(urls) < partitions:
        raise ConfigError(
            "BUSYAPI_FLUSHER_URLS must be one URL with {partition}, or one for each partition"
        )
    return urls
