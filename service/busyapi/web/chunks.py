"""A decoder of chunked bodies as they arrive (RFC 9112, section 7.1).

    size[;extension] CRLF data CRLF ... 0[;extension] CRLF [trailer fields] CRLF

A proxy that interprets a size or a line end differently from this service would find another end of
the request. So a size must be 1 to 8 hexadecimal digits, and every line end CRLF. All bytes that
are not data have a limit. Trailer fields are parsed and dropped.

This module parses bytes and does not depend on Sanic.
"""

import re

from busyapi.web.head import FIELD

MAX_EXTENSION_BYTES = 256
"""Limit of one chunk. All extensions and trailer fields of a body have a common limit too."""

_EXTENSION = rb";[\t\x20-\x7e\x80-\xff]{0,%d}" % MAX_EXTENSION_BYTES
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})(%b)?\r\n" % _EXTENSION)
_PARTIAL_SIZE = re.compile(rb"[0-9A-Fa-f]{0,8}\r?|[0-9A-Fa-f]{1,8}%b\r?" % _EXTENSION)
_FIELD = re.compile(rb"%b\r\n" % FIELD)
_PARTIAL_FIELD = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*\r?")
_END = b"\r\n"


class MalformedChunk(Exception):
    """Some recipients could interpret the body differently."""


class ChunkDecoder:
    """Extracts the data of one chunked body from received bytes."""

    def __init__(self, max_overhead: int) -> None:
        self.announced_bytes = 0
        """Sum of the chunk sizes read so far."""
        self.done = False
        self._overhead = max_overhead
        self._bytes_left = 0
        self._chunk_started = False  # the CRLF after the chunk's data is due
        self._in_trailers = False
        self.failed = False
        """The body is malformed after what was returned: the next call raises."""

    def decode(self, received: bytes) -> tuple[int, bytes]:
        """Return how many bytes were used, and the data in them.

        Once `done`, the unused bytes belong to the next request. Until then they are an incomplete
        line: pass them again, together with the bytes received next.

        What comes before a malformed place is returned first, so that the response to a body with
        two errors does not depend on the packets in which it arrived.

        Raises:
            MalformedChunk: the body is refused at its first unused byte.
        """
        if self.failed:
            raise MalformedChunk
        at = 0
        parts: list[bytes] = []
        while not self.done:
            if self._bytes_left:
                part = received[at : at + self._bytes_left]
                if not part:
                    break
                parts.append(part)
                at += len(part)
                self._bytes_left -= len(part)
                continue
            try:
                used = (
                    self._read_trailer_line(received, at)
                    if self._in_trailers
                    else self._read_size_line(received, at)
                )
            except MalformedChunk:
                self.failed = True
                if not at:
                    raise
                break
            if not used:
                break
            at += used
        return at, b"".join(parts)

    def _read_size_line(self, received: bytes, at: int) -> int:
        """Read the line before a chunk's data, and the CRLF that ends the previous chunk."""
        start = at
        if self._chunk_started:
            end = received[at : at + 2]
            if end != _END:
                if _END.startswith(end):
                    return 0
                raise MalformedChunk
            start += 2
        match = _SIZE.match(received, start)
        if match is None:
            if _PARTIAL_SIZE.fullmatch(received, start):
                return 0
            raise MalformedChunk
        self._spend_overhead(match.end(2) - match.start(2))
        self._bytes_left = int(match[1], 16)
        self.announced_bytes += self._bytes_left
        self._chunk_started = True
        self._in_trailers = not self._bytes_left
        return match.end() - at

    def _read_trailer_line(self, received: bytes, at: int) -> int:
        """Read the line of a trailer field, or the empty line that ends the body."""
        if received.startswith(_END, at):
            self.done = True
            return 2
        match = _FIELD.match(received, at)
        if match is None:
            if len(received) - at <= self._overhead and _PARTIAL_FIELD.fullmatch(received, at):
                return 0
            raise MalformedChunk
        self._spend_overhead(match.end() - at)
        return match.end() - at

    def _spend_overhead(self, overhead: int) -> None:
        self._overhead -= overhead
        if self._overhead < 0:
            raise MalformedChunk
