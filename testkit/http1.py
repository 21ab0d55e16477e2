"""HTTP/1.1 as a device speaks it: nothing is repeated behind its back."""

import asyncio
import contextlib
import http.client
import json
from collections.abc import Mapping
from typing import Any, NamedTuple, Self


class NotSent(ConnectionError):
    """No connection could be made: not a byte was sent."""


class Answer(NamedTuple):
    """A whole answer."""

    status: int
    headers: dict[str, str]
    """Names in lower case; of repeated ones, the last."""
    body: bytes

    def json(self) -> Any:
        """Return what the body says."""
        return json.loads(self.body)


class Connection:
    """A keep-alive connection. It connects when it has to, and again after it was closed."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.port = port
        self.host = host
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes, seconds: float) -> Answer:
        """Send one request and read its answer.

        Raises:
            NotSent: nobody listens.
            OSError, EOFError, ValueError, TimeoutError: sent, but not answered in HTTP.
        """
        reader, writer = await self._connected(seconds)
        try:
            async with asyncio.timeout(seconds):
                writer.write(request)
                await writer.drain()
                answer = await _read(reader)
        except BaseException:
            self.close()
            raise
        if answer.headers.get("connection", "").lower() == "close":
            self.close()
        return answer

    async def _connected(self, seconds: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        # A server that has closed an idle connection is not sent anything on it.
        if self._streams and (self._streams[0].at_eof() or self._streams[1].is_closing()):
            self.close()
        if not self._streams:
            try:
                async with asyncio.timeout(seconds):
                    self._streams = await asyncio.open_connection(self.host, self.port)
            except OSError as error:  # TimeoutError is one
                raise NotSent(str(error)) from error
        return self._streams

    def close(self) -> None:
        """Close it; the next request connects again."""
        if self._streams:
            with contextlib.suppress(RuntimeError):  # its event loop may be closed
                self._streams[1].close()
            self._streams = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()


async def _read(reader: asyncio.StreamReader) -> Answer:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Answer(int(first.split(" ", 2)[1]), headers, body)


def render_post(path: str, body: bytes, **headers: str) -> bytes:
    """Render a POST; in a header's name an underscore stands for a hyphen."""
    headers = {"content_type": "application/json"} | headers
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def fetch(
    port: int,
    path: str,
    *,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    seconds: float = 20.0,
) -> Answer:
    """Ask once, on a connection of its own.

    Raises:
        OSError, HTTPException: no connection, or no answer in time, or not in HTTP.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    with contextlib.closing(connection):
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        named = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, named, answer.read())
