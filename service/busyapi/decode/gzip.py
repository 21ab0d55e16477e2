"""Content-Encoding: gzip, with a bound on what comes out, in steps."""

import zlib

from busyapi.decode.incremental import Incremental
from busyapi.errors import BodyTooLarge, MalformedBody

MAX_MEMBERS = 16
"""A gzip body is one member; RFC 1952 allows several. Each costs an object of zlib's of 7 kB."""

UNCHECKED_RATIO_BYTES = 2_097_152
"""Up to this size a body may be packed as well as can be."""

MAX_RATIO = 100
"""Beyond it, this many bytes for each byte sent. Usages pack to a tenth; a bomb to a thousandth."""

_INPUT_STEP_BYTES = 65_536
"""Bytes of gzip in one step: zlib takes up to 80 ns for each, if blocks hold only tables."""
_OUTPUT_STEP_BYTES = 262_144
"""Bytes that come out in one step: 1 ms."""

_GZIP = 16 + zlib.MAX_WBITS
"""zlib's way to say: a gzip header and trailer, with its checksum, and nothing else."""


def decompress(body: bytes, max_bytes: int) -> Incremental[bytes]:
    """Return what a gzip body holds. No more than `max_bytes` and one step are ever inflated.

    Raises:
        MalformedBody: not gzip, cut off, followed by something else, or of too many members.
        BodyTooLarge: it holds more than `max_bytes` bytes, or too many for its size.
    """
    inflated = bytearray()
    member, members, whole, pause = zlib.decompressobj(_GZIP), 1, False, _OUTPUT_STEP_BYTES
    for start in range(0, len(body), _INPUT_STEP_BYTES):
        if start:
            yield
        rest = body[start : start + _INPUT_STEP_BYTES]
        while True:
            if whole and rest:
                member, members, whole = zlib.decompressobj(_GZIP), members + 1, False
            part = _decompress_step(member, members, rest, max_bytes + 1 - len(inflated))
            inflated += part
            _check_size(len(inflated), len(body), max_bytes)
            whole = member.eof
            rest = member.unused_data if whole else member.unconsumed_tail
            # Without input left there may be output left, if this step was full.
            if not rest and (whole or len(part) < _OUTPUT_STEP_BYTES):
                break
            if len(inflated) > pause:
                yield
                pause = len(inflated) + _OUTPUT_STEP_BYTES
    if not body:
        raise _not_gzip_error()
    if not whole:
        raise MalformedBody("The gzip body is cut off.")
    return bytes(inflated)


def _decompress_step(member: "zlib._Decompress", members: int, rest: bytes, most: int) -> bytes:
    """Inflate up to a step's bytes. `most` is above 0, which zlib takes for no limit."""
    if members <= MAX_MEMBERS:
        try:
            return member.decompress(rest, min(_OUTPUT_STEP_BYTES, most))
        except zlib.error:
            pass  # raised below, not here: its message is zlib's
    raise _not_gzip_error()


def _check_size(size: int, packed: int, limit: int) -> None:
    if size > limit:
        raise BodyTooLarge(f"The body is larger than {limit} bytes when inflated.")
    if size > max(UNCHECKED_RATIO_BYTES, MAX_RATIO * packed):
        raise BodyTooLarge(
            f"The body is larger than {UNCHECKED_RATIO_BYTES} bytes when inflated,"
            f" and more than {MAX_RATIO} times what was sent."
        )


def _not_gzip_error() -> MalformedBody:
    return MalformedBody(f"The body is not gzip of 1 to {MAX_MEMBERS} members.")
