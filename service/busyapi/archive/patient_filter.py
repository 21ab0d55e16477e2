"""A Bloom filter of the patients of a segment: which segments a search may leave out.

A filter never lacks a patient of its segment. At most one of 150 other patients seems to be in it.
A patient is the text of a `patientId`, so "7" and 7 are the same one.
"""

import re
import struct
from collections.abc import Iterator
from hashlib import sha256
from typing import NamedTuple

from busyapi.archive.archived_usage import parse_line

BITS_PER_PATIENT = 12
"""At least."""
_SMALLEST_PARTS = 1 << 10
"""Into how many parts the bits of a segment can be halved: a power of 2."""
_MAX_SEEN, _MAX_SEEN_BYTES = 1 << 17, 64
"""How many to remember, and the longest of them: all take at most 24 MiB."""
_WORDS = struct.Struct("<4Q")
_PATIENT = re.compile(rb'"patientId":("[^"\\]*"|-?[0-9]+(?![0-9.eE]))')


class PatientFilter(NamedTuple):
    """The bits of a filter."""

    bits: bytes

    def may_hold(self, patient: str) -> bool:
        """Return whether the segment may hold a usage of this patient."""
        bits = self.bits
        return all(
            bits[at >> 3] >> (at & 7) & 1 for at in _positions(_encode(patient), 8 * len(bits))
        )


class PatientCollector:
    """Collects the patients of a segment, and perhaps texts that other members hold.

    Its memory is bounded by the number of usages, not by what their patients are called. It begins
    with the bits of a filter in which every usage is of another patient, and halves them at the end
    as often as the patients that it has met allow.
    """

    def __init__(self, usages: int) -> None:
        chunks = -(-usages * BITS_PER_PATIENT // (8 * _SMALLEST_PARTS))
        self._bits = bytearray(max(1, chunks) * _SMALLEST_PARTS)
        self._patients = 0
        """How many have set a bit: nearly all."""
        self._seen: set[bytes] = set()
        """JSON of the patients that are in the bits already, which saves their digests."""

    def add(self, lines: bytes) -> None:
        r"""Add the patients of these lines.

        A line with a backslash is parsed, because it may spell a patient otherwise, as `"\u0031"`,
        or the name of the member.

        Raises:
            ArchiveDamaged: such a line is no line of the archive.
        """
        tokens = set(_PATIENT.findall(lines)) - self._seen
        if len(self._seen) + len(tokens) > _MAX_SEEN:
            self._seen.clear()
        self._seen |= {token for token in tokens if len(token) <= _MAX_SEEN_BYTES}
        for token in tokens:
            self._insert(b"0" if token == b"-0" else token.strip(b'"'))
        if b"\\" in lines:
            for line in lines.splitlines():
                if b"\\" in line:
                    self._add_parsed(parse_line(line).usage.get("patientId"))

    def build(self) -> PatientFilter:
        """Build the filter: 12 bits for each patient, and less than 24, or one byte."""
        bits = int.from_bytes(self._bits, "little")
        size = len(self._bits)
        # A position modulo half of the bits is that position, or half of the bits less.
        while size % 2 == 0 and 8 * size // 2 >= self._patients * BITS_PER_PATIENT:
            size //= 2
            bits = bits >> 8 * size | bits & (1 << 8 * size) - 1
        return PatientFilter(bits.to_bytes(size, "little"))

    def _add_parsed(self, patient: object) -> None:
        if type(patient) in {str, int}:
            self._insert(_encode(str(patient)))

    def _insert(self, patient: bytes) -> None:
        bits, is_new = self._bits, False
        for at in _positions(patient, 8 * len(bits)):
            mask = 1 << (at & 7)
            is_new |= not bits[at >> 3] & mask
            bits[at >> 3] |= mask
        self._patients += is_new


def _encode(patient: str) -> bytes:
    """Return UTF-8. Half a surrogate pair, which no line has, is allowed here."""
    return patient.encode(errors="surrogatepass")


def _positions(patient: bytes, size: int) -> Iterator[int]:
    """Yield the bits of a patient."""
    return (word % size for word in _WORDS.unpack(sha256(patient).digest()))
