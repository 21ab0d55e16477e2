"""A Bloom filter of the patients of a segment: which segments a search may leave out.

A filter never lacks a patient of its segment. One of 150 other patients seems to be in it. A
patient is the text of a `patientId`, so "7" and 7 are the same one.
"""

import re
import struct
from collections.abc import Iterator
from hashlib import sha256
from typing import NamedTuple

from busyapi.archive.archived_usage import parse_line

BITS_PER_PATIENT = 12
_WORDS = struct.Struct("<4Q")
_PATIENT = re.compile(rb'"patientId":("[^"\\]*"|-?[0-9]+(?![0-9.eE]))')


class PatientFilter(NamedTuple):
    """The bits of a filter."""

    bits: bytes

    def may_hold(self, patient: str) -> bool:
        """Return whether the segment may hold a usage of this patient."""
        bits = self.bits
        return all(bits[at >> 3] >> (at & 7) & 1 for at in _positions(patient, 8 * len(bits)))


class PatientCollector:
    """Collects the patients of a segment, and perhaps texts that other members hold."""

    def __init__(self) -> None:
        self._tokens: set[bytes] = set()
        """JSON of each, which is quick to collect."""
        self._escaped: set[str] = set()

    def add(self, lines: bytes) -> None:
        r"""Add the patients of these lines.

        A line with a backslash is parsed, because it may spell a patient otherwise, as `"\u0031"`.

        Raises:
            ArchiveDamaged: such a line is no line of the archive.
        """
        self._tokens.update(_PATIENT.findall(lines))
        if b"\\" in lines:
            for line in lines.splitlines():
                if b"\\" in line:
                    self._add_parsed(parse_line(line).usage.get("patientId"))

    def _add_parsed(self, patient: object) -> None:
        if type(patient) is str:  # the pattern finds an integer
            self._escaped.add(patient)

    def build(self) -> PatientFilter:
        """Build the filter."""
        patients = {token.decode().strip('"') for token in self._tokens - {b"-0"}} | self._escaped
        if b"-0" in self._tokens:
            patients.add("0")
        bits = bytearray(len(patients) * BITS_PER_PATIENT // 8 + 1)
        for patient in patients:
            for at in _positions(patient, 8 * len(bits)):
                bits[at >> 3] |= 1 << (at & 7)
        return PatientFilter(bytes(bits))


def _positions(patient: str, size: int) -> Iterator[int]:
    """Yield the bits of a patient. Half a surrogate pair, which no line has, is allowed here."""
    digest = sha256(patient.encode(errors="surrogatepass")).digest()
    return (word % size for word in _WORDS.unpack(digest))
