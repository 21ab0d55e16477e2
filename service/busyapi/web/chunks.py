"""A chunked body as it arrives (RFC 9112, section 7.1).

    size[;extension] CRLF data CRLF ... 0[;extension] CRLF [trailer fields] CRLF

A proxy that reads a size or a line end in another way than this service would see another end of
the request. So a size is 1 to 8 hexadecimal digits, line ends are CRLF and nothing else, and
everything beside the data is bounded. Trailer fields are read and dropped.

This module parses bytes and knows nothing of Sanic.
"""

import re

from busyapi.web.head import FIELD

MAX_EXTENSION_BYTES = 256
"""Of one chunk. All extensions and trailer fields of a body share a bound of their own."""

_EXTENSION = rb";[\t\x20-\x7e\x80-\xff]{0,%d}" % MAX_EXTENSION_BYTES
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})(%b)?\r\n" % _EXTENSION)
_PARTIAL_SIZE = re.compile(rb"[0-9A-Fa-f]{0,8}\r?|[0-9A-Fa-f]{1,8}%b\r?" % _EXTENSION)
_FIELD = re.compile(rb"%b\r\n" % FIELD)
_PARTIAL_FIELD = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*\r?")
_END = b"\r\n"


class MalformedChunk(Exception):
    """The body is not one that every recipient reads in the same way."""


class ChunkDecoder:
    """Takes the chunks of one body out of what has been received."""

    def __init__(self, max_overhead: int) -> None:
        self.announced_bytes = 0
        """Bytes of data that the sizes seen so far promise."""
        self.done = False
        self._overhead = max_overhead
        self._bytes_left = 0
        self._chunk_started = False  # a CRLF ends the chunk that was begun
        self._in_trailers = False
        self._failed = False

    def decode(self, received: bytes) -> tuple[int, bytes]:
        """Return how many bytes were used, and the data in them.

        Once `done`, the bytes that were not used belong to the next request. Otherwise the rest
        is an incomplete line: call again with it when more has been received.

        Raises:
            MalformedChunk: the body is refused, now and at each later call.
        """
        if self._failed:
            raise MalformedChunk
        self._failed = True
        used, data = self._decode(received)
        self._failed = False
        return used, data

    def _decode(self, received: bytes) -> tuple[int, bytes]:
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
            used = (
                self._read_trailer_line(received, at)
                if self._in_trailers
                else self._read_size_line(received, at)
            )
            if not used:
                break
            at += used
        return at, b"".join(parts)

    def _read_size_line(self, received: bytes, at: int) -> int:
        """Read the line before a chunk's data, with the CRLF of the chunk before it."""
        start = at
        if self._chunk_started:
            end = received[at : at + 2]
            if end != _END:
                if _END.startswith(end):
                    return 0
                raise MalformedChunk
            start += 2
        found = _SIZE.match(received, start)
        if found is None:
            if _PARTIAL_SIZE.fullmatch(received, start):
                return 0
            raise MalformedChunk
        self._spend_overhead(found.end(2) - found.start(2))
        self._bytes_left = int(found[1], 16)
        self.announced_bytes += self._bytes_left
        self._chunk_started = True
        self._in_trailers = not self._bytes_left
        return found.end() - at

    def _read_trailer_line(self, received: bytes, at: int) -> int:
        """Read the line of a trailer field, or the empty one that ends the body."""
        if received.startswith(_END, at):
            self.done = True
            return 2
        found = _FIELD.match(received, at)
        if found is None:
            if len(received) - at <= self._overhead and _PARTIAL_FIELD.fullmatch(received, at):
                return 0
            raise MalformedChunk
        self._spend_overhead(found.end() - at)
        return found.end() - at

    def _spend_overhead(self, overhead: int) -> None:
        self._overhead -= overhead
        if self._overhead < 0:
            raise MalformedChunk
