"""Many usages in one body: a JSON array, or a line of JSON each (NDJSON). All or nothing.

    array ──> pieces, each read as a whole (`ordinary`) ─────────────────────> lines
      └─ if that fails ─> items, unparsed ──> groups of them, likewise ──────> lines
    NDJSON ─────────────> lines of text ────> one after the other ───────────> lines

A group is at most STRETCH bytes, or one item; between groups the work yields. Where a group is not
good as a whole, each of its items is read by itself, and what is wrong with it is named.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from busyapi.decode.bounds import (
    STRETCH,
    TOO_DENSE,
    count_brackets,
    count_containers,
    most_in_batch,
)
from busyapi.decode.ordinary import quick_lines, read_ordinary
from busyapi.decode.reference import BYTE_ORDER_MARK, MOST_FAULTS, NotJson, Unreadable
from busyapi.decode.split import split_array
from busyapi.decode.steps import Steps
from busyapi.decode.usage import quick_line, read_line
from busyapi.errors import Fault, MalformedBody, NotAUsage

_GROUP = 256
"""Items of a group; of ordinary usages these are about STRETCH bytes."""


class Limits(NamedTuple):
    """What one batch may hold."""

    items: int
    bytes_each: int
    """The bytes of one usage as it is sent."""


def decode_batch(raw: bytes, *, ndjson: bool, strict: bool, limits: Limits) -> Steps[list[bytes]]:
    """Return each usage as its line, in the order sent.

    Raises:
        MalformedBody: the body as a whole is not a JSON array in UTF-8.
        NotAUsage: every bad item by its index, up to MOST_FAULTS reasons; or, at pointer "",
            that there is no usage, or that there are too many, or too many brackets.
    """
    if len(raw) > STRETCH:
        yield
    if ndjson:
        items: Sequence[Any] = _split_lines(raw, limits.items)
    else:
        raw = raw.removeprefix(BYTE_ORDER_MARK)
        longest = min(STRETCH, limits.bytes_each)
        lines = yield from read_ordinary(raw, limits.items, longest, strict=strict)
        if lines:
            return lines
        items = yield from split_array(raw, limits.items)
    _check_count(len(items), limits.items)
    most = most_in_batch(len(raw), len(items))
    if len(raw) > STRETCH:
        yield
    if count_brackets(raw) > most:
        yield from _check_density(items, most, limits.bytes_each)
    reading = _Reading(limits, strict=strict)
    yield from reading.lines_of(items) if ndjson else reading.array_of(items)
    if reading.faults:
        raise NotAUsage(reading.faults[:MOST_FAULTS])
    return reading.lines


def _split_lines(raw: bytes, most: int) -> list[bytes]:
    """Split at newlines: read in one go, two broken lines could make one good usage.

    Blank lines after the last usage are no items; one before it is a bad item.
    """
    raw = raw.rstrip(b" \t\r\n")
    # Counted before they are split: four million empty lines are four million objects.
    _check_count(raw.count(b"\n") + 1 if raw else 0, most)
    return raw.split(b"\n")


def _check_count(count: int, most: int) -> None:
    if not 1 <= count <= most:
        raise NotAUsage([Fault("", f"must hold 1 to {most} usages")])


def _check_density(items: Sequence[Any], most: int, longest: int) -> Steps[None]:
    """Count again, without the brackets inside of strings, in what is not too large anyway."""
    found = size = 0
    for item in items:
        length = memoryview(item).nbytes
        if length <= longest:
            found += count_containers(bytes(item))
            size += length
        if found > most:
            raise NotAUsage([Fault("", TOO_DENSE)])
        if size > STRETCH:
            size = 0
            yield


class _Reading:
    """One batch under way."""

    def __init__(self, limits: Limits, *, strict: bool) -> None:
        self._limits = limits
        self._strict = strict
        self.lines: list[bytes] = []
        self.faults: list[Fault] = []

    def lines_of(self, texts: Sequence[bytes]) -> Steps[None]:
        """Read lines of text one by one."""
        size, strict, longest = 0, self._strict, self._limits.bytes_each
        for index, text in enumerate(texts):
            size += len(text)
            if size > STRETCH and index:
                yield
                size = len(text)
            if len(text) <= longest and (line := quick_line(text, strict=strict, longest=longest)):
                self.lines.append(line)
                continue
            try:
                yield from self._read(index, text)
            except Unreadable as why:
                self.faults.append(Fault(f"/{index}", str(why)))
            if len(self.faults) >= MOST_FAULTS:
                return

    def array_of(self, items: Sequence[Any]) -> Steps[None]:
        """Read an array's items in groups."""
        at, count, longest = 0, _GROUP, min(STRETCH, self._limits.bytes_each)
        while at < len(items) and len(self.faults) < MOST_FAULTS:
            if at:
                yield
            group = items[at : at + count]
            joined = b",".join(group)
            while len(joined) > longest and len(group) > 1:
                count = len(group) // 2
                group = group[:count]
                joined = b",".join(group)
            lines = None
            if len(joined) <= self._limits.bytes_each:
                lines = quick_lines(joined, count_brackets(joined), strict=self._strict)
            if lines is None:
                yield from self._each(at, group)
            else:
                self.lines += lines
            at += len(group)
            count = min(2 * count, _GROUP)

    def _each(self, at: int, group: Sequence[Any]) -> Steps[None]:
        """Read the items of a group one by one. As a whole they were not ordinary usages."""
        tried = len(group) == 1
        for index, item in enumerate(group, at):
            wrong = ""
            try:
                yield from self._read(index, bytes(item), tried=tried)
            except NotJson as why:
                wrong = str(why)
            except Unreadable as why:
                self.faults.append(Fault(f"/{index}", str(why)))
            if wrong:
                # Not a fault of one usage: what is no JSON in one place is none as a whole.
                raise MalformedBody(f"The usage at index {index} {wrong}.")
            if len(self.faults) >= MOST_FAULTS:
                return

    def _read(self, index: int, raw: bytes, *, tried: bool = False) -> Steps[None]:
        most = self._limits.bytes_each
        if len(raw) > most:
            self.faults.append(Fault(f"/{index}", f"is larger than {most} bytes"))
            return
        try:
            line = yield from read_line(raw, strict=self._strict, tried=tried)
            self.lines.append(line)
        except NotAUsage as why:
            self.faults += [Fault(f"/{index}{pointer}", text) for pointer, text in why.faults]
