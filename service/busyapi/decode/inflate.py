"""Content-Encoding: gzip, with a bound on what comes out."""

import zlib

from busyapi.errors import BodyTooLarge, MalformedBody

MOST_MEMBERS = 16
"""A gzip body is one member; RFC 1952 allows several. Each costs a copy of all that follows it,
so a body of many empty ones would cost its square."""

_GZIP = 16 + zlib.MAX_WBITS
"""zlib's way to say: a gzip header and trailer, with its checksum, and nothing else."""


def inflate(body: bytes, limit: int) -> bytes:
    """Return what a gzip body holds. No more than `limit` + 1 bytes of it are ever inflated.

    Raises:
        MalformedBody: not gzip, cut off, followed by something else, or of too many members.
        BodyTooLarge: it holds more than `limit` bytes.
    """
    inflated, rest = bytearray(), body
    for _ in range(MOST_MEMBERS):
        member = zlib.decompressobj(_GZIP)
        try:
            # One more than allowed, which also keeps it from 0: no limit, to zlib.
            inflated += member.decompress(rest, limit - len(inflated) + 1)
        except zlib.error:
            break
        if len(inflated) > limit:
            raise BodyTooLarge(f"The body is larger than {limit} bytes when inflated.")
        if not member.eof:
            raise MalformedBody("The gzip body is cut off.")
        rest = member.unused_data
        if not rest:
            return bytes(inflated)
    raise MalformedBody(f"The body is not gzip of 1 to {MOST_MEMBERS} members.")
