"""An HTTP/1.1 client like that of a device. It never sends a request again by itself."""

import asyncio
import contextlib
import http.client
import json
import socket
import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple, Self


class NotSent(ConnectionError):
    """There was no connection, so not a byte was sent."""


class Tls(NamedTuple):
    """What a client needs to verify a server's certificate."""

    context: ssl.SSLContext
    name: str
    """The host in the certificate, which may differ from the address."""


class Answer(NamedTuple):
    """A complete answer."""

    status: int
    headers: dict[str, str]
    """By name in lower case. The last one wins."""
    body: bytes

    def json(self) -> Any:
        """Return the parsed body."""
        return json.loads(self.body)


class Connection:
    """A keep-alive connection. It connects with the first request, and again after a close."""

    def __init__(self, port: int, host: str = "127.0.0.1", tls: Tls | None = None) -> None:
        self.port = port
        self.host = host
        self.tls = tls
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes, seconds: float) -> Answer:
        """Send one request and read its answer.

        Raises:
            NotSent: no server listens.
            OSError, EOFError, ValueError, TimeoutError: sent, but without a valid HTTP answer.
        """
        reader, writer = await self._connect(seconds)
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

    async def _connect(self, seconds: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        # Send nothing on a connection that the server has closed while it was idle.
        if self._streams and (self._streams[0].at_eof() or self._streams[1].is_closing()):
            self.close()
        if not self._streams:
            try:
                async with asyncio.timeout(seconds):
                    self._streams = await asyncio.open_connection(
                        self.host,
                        self.port,
                        ssl=self.tls and self.tls.context,
                        server_hostname=self.tls and self.tls.name,
                    )
            except OSError as error:  # TimeoutError is one
                raise NotSent(str(error)) from error
        return self._streams

    def close(self) -> None:
        """Close it. The next request connects again."""
        if self._streams:
            with contextlib.suppress(RuntimeError):  # its event loop may be closed
                self._streams[1].close()
            self._streams = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()


async def _read(reader: asyncio.StreamReader) -> Answer:
    head = parse_head((await reader.readuntil(b"\r\n\r\n"))[:-4])
    body = await reader.readexactly(int(head.headers.get("content-length", "0")))
    return head._replace(body=body)


def parse_head(head: bytes) -> Answer:
    """Parse a status line and headers, without the empty line after them."""
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in fields}
    return Answer(int(first.split(" ", 2)[1]), headers, b"")


def render_post(path: str, body: bytes, **headers: str) -> bytes:
    """Render a POST. An underscore in the name of a header argument becomes a hyphen."""
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
    host: str = "127.0.0.1",
    tls: Tls | None = None,
) -> Answer:
    """Send one request on a new connection, and return the answer.

    Raises:
        OSError, HTTPException: no connection, no answer in time, or an answer that is not HTTP.
    """
    connection = http.client.HTTPConnection(host, port, timeout=seconds)
    with contextlib.closing(connection):
        if tls:
            plain = socket.create_connection((host, port), seconds)
            connection.sock = tls.context.wrap_socket(plain, server_hostname=tls.name)
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        fields = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, fields, answer.read())
