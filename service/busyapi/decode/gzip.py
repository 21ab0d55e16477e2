"""Content-Encoding: gzip, decompressed in steps and with a limit on the output."""

import zlib

from busyapi.decode.incremental import Incremental
from busyapi.errors import BodyTooLarge, MalformedBody

MAX_MEMBERS = 16
"""A gzip body usually has one member; RFC 1952 allows several. Each takes a zlib object of 7 kB."""

UNCHECKED_RATIO_BYTES = 2_097_152
"""Up to this decompressed size, any compression ratio is allowed."""

MAX_RATIO = 100
"""Decompressed bytes for each byte sent, beyond that size. Usages compress to a tenth of their
size, a bomb to a thousandth."""

_INPUT_STEP_BYTES = 65_536
"""Compressed bytes in one step: zlib takes up to 80 ns for each, if blocks hold only tables."""
_OUTPUT_STEP_BYTES = 262_144
"""Decompressed bytes in one step, which takes 1 ms."""

_GZIP = 16 + zlib.MAX_WBITS
"""For zlib: require a gzip header and a trailer with its checksum, and accept nothing else."""


def decompress(body: bytes, max_bytes: int) -> Incremental[bytes]:
    """Return the content of a gzip body. At most `max_bytes` and one step are decompressed.

    Raises:
        MalformedBody: not gzip, cut off, followed by other bytes, or too many members.
        BodyTooLarge: the content exceeds `max_bytes` bytes, or is too large for the bytes sent.
    """
    inflated = bytearray()
    member, members, complete, next_pause = zlib.decompressobj(_GZIP), 1, False, _OUTPUT_STEP_BYTES
    for start in range(0, len(body), _INPUT_STEP_BYTES):
        if start:
            yield
        rest = body[start : start + _INPUT_STEP_BYTES]
        while True:
            if complete and rest:
                member, members, complete = zlib.decompressobj(_GZIP), members + 1, False
            part = _decompress_step(member, members, rest, max_bytes + 1 - len(inflated))
            inflated += part
            _check_size(len(inflated), len(body), max_bytes)
            complete = member.eof
            rest = member.unused_data if complete else member.unconsumed_tail
            # If this step was full, output may be left although no input is.
            if not rest and (complete or len(part) < _OUTPUT_STEP_BYTES):
                break
            if len(inflated) > next_pause:
                yield
                next_pause = len(inflated) + _OUTPUT_STEP_BYTES
    if not body:
        raise _not_gzip_error()
    if not complete:
        raise MalformedBody("The gzip body is cut off.")
    return bytes(inflated)


def _decompress_step(
    member: "zlib._Decompress", members: int, rest: bytes, max_bytes: int
) -> bytes:
    """Decompress up to one step. `max_bytes` is above 0, which would mean no limit to zlib."""
    if members <= MAX_MEMBERS:
        try:
            return member.decompress(rest, min(_OUTPUT_STEP_BYTES, max_bytes))
        except zlib.error:
            pass  # raise below, not here: this error's message is zlib's
    raise _not_gzip_error()


def _check_size(size: int, sent_bytes: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise BodyTooLarge(f"The body is larger than {max_bytes} bytes when inflated.")
    if size > max(UNCHECKED_RATIO_BYTES, MAX_RATIO * sent_bytes):
        raise BodyTooLarge(
            f"The body is larger than {UNCHECKED_RATIO_BYTES} bytes when inflated,"
            f" and more than {MAX_RATIO} times what was sent."
        )


def _not_gzip_error() -> MalformedBody:
    return MalformedBody(f"The body is not gzip of 1 to {MAX_MEMBERS} members.")
