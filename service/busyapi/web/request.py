"""A request whose body is received when its handler asks for it."""

from collections.abc import Callable
from typing import Any

from sanic import Request

from busyapi.errors import BodyTooLarge


class BufferedRequest(Request):
    """Sanic's request; a handler receives the body itself, within a limit."""

    async def receive_body(self) -> None:
        """Skip the body of a request that needs none; Sanic calls this before such a handler."""
        stream: Any = self.stream
        while stream and stream.request_body:
            await stream.read()

    async def receive_whole_body(
        self, limit: int, check_start: Callable[[bytes], None] | None = None
    ) -> None:
        """Receive the complete body; `check_start` gets its first part and may refuse it.

        Raises:
            BodyTooLarge: the Content-Length exceeds the limit.
            PayloadTooLarge: the chunks exceed it.
            Overloaded: this process is receiving too many bytes.
        """
        stream: Any = self.stream
        if not stream or not stream.request_body:
            return
        stream.request_max_size = limit
        if stream.request_bytes > limit:
            stream.keep_alive = False
            raise BodyTooLarge(f"The body is larger than {limit} bytes.")
        body: bytes | bytearray = b""
        while stream.request_body:
            part = await stream.read()
            if not part:
                continue
            stream.protocol.body_bytes += len(part)
            if body:
                # One growing buffer: a list of parts needs the same memory again when it is joined,
                # and many times more if each part is one byte.
                body = bytearray(body) if isinstance(body, bytes) else body
                body += part
            else:
                body = part
                if check_start:
                    check_start(part)
        stream.protocol.reserve_body()
        self.body = bytes(body)

    def release_body(self) -> None:
        """Free the body once it is decoded or refused."""
        self.body = b""
        stream: Any = self.stream
        if stream:
            stream.protocol.release_body()
