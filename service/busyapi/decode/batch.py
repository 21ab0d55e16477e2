"""Many usages in one body: a JSON array, or a line of JSON each (NDJSON). All or nothing.

    array ──> pieces, each read as a whole (`ordinary`) ─────────────────────> lines
      └─ if that fails ─> items, unparsed ──> groups of them, likewise ──────> lines
    NDJSON ─────────────> lines of text ────> one after the other ───────────> lines

A group is at most STRETCH bytes, or one item; between groups the work yields. Where a group is not
good as a whole, each of its items is read by itself, and what is wrong with it is named.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from busyapi.decode.diagnose import BYTE_ORDER_MARK, MAX_ERRORS, NotJson, Unreadable
from busyapi.decode.fast_array import decode_array_fast, decode_items_fast
from busyapi.decode.incremental import Incremental
from busyapi.decode.limits import (
    MAX_STEP_BYTES,
    TOO_DENSE,
    count_brackets,
    count_containers,
    max_containers_in_batch,
)
from busyapi.decode.split import split_array
from busyapi.decode.usage import decode_fast, read_line
from busyapi.errors import InvalidUsage, MalformedBody, ValidationError

_GROUP_ITEMS = 256
"""Items of a group; of ordinary usages these are about STRETCH bytes."""


class BatchLimits(NamedTuple):
    """What one batch may hold."""

    max_items: int
    max_item_bytes: int
    """The bytes of one usage as it is sent."""


def decode_batch(
    raw: bytes, *, ndjson: bool, strict: bool, limits: BatchLimits
) -> Incremental[list[bytes]]:
    """Return each usage as its line, in the order sent.

    Raises:
        MalformedBody: the body as a whole is not a JSON array in UTF-8.
        InvalidUsage: every bad item by its index, up to MAX_FAULTS reasons; or, at pointer "",
            that there is no usage, or that there are too many, or too many brackets.
    """
    if len(raw) > MAX_STEP_BYTES:
        yield
    if ndjson:
        items: Sequence[Any] = _split_lines(raw, limits.max_items)
    else:
        raw = raw.removeprefix(BYTE_ORDER_MARK)
        longest = min(MAX_STEP_BYTES, limits.max_item_bytes)
        lines = yield from decode_array_fast(raw, limits.max_items, longest, strict=strict)
        if lines:
            return lines
        items = yield from split_array(raw, limits.max_items)
    _check_count(len(items), limits.max_items)
    most = max_containers_in_batch(len(raw), len(items))
    if len(raw) > MAX_STEP_BYTES:
        yield
    if count_brackets(raw) > most:
        yield from _check_density(items, most, limits.max_item_bytes)
    reading = _BatchReader(limits, strict=strict)
    yield from reading.read_lines(items) if ndjson else reading.read_array(items)
    if reading.errors:
        raise InvalidUsage(reading.errors[:MAX_ERRORS])
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
        raise InvalidUsage([ValidationError("", f"must hold 1 to {most} usages")])


def _check_density(items: Sequence[Any], most: int, longest: int) -> Incremental[None]:
    """Count again, without the brackets inside of strings, in what is not too large anyway."""
    found = size = 0
    for item in items:
        length = memoryview(item).nbytes
        if length <= longest:
            found += count_containers(bytes(item))
            size += length
        if found > most:
            raise InvalidUsage([ValidationError("", TOO_DENSE)])
        if size > MAX_STEP_BYTES:
            size = 0
            yield


class _BatchReader:
    """One batch under way."""

    def __init__(self, limits: BatchLimits, *, strict: bool) -> None:
        self._limits = limits
        self._strict = strict
        self.lines: list[bytes] = []
        self.errors: list[ValidationError] = []

    def read_lines(self, texts: Sequence[bytes]) -> Incremental[None]:
        """Read lines of text one by one."""
        size, strict, longest = 0, self._strict, self._limits.max_item_bytes
        for index, text in enumerate(texts):
            size += len(text)
            if size > MAX_STEP_BYTES and index:
                yield
                size = len(text)
            if len(text) <= longest and (
                line := decode_fast(text, strict=strict, max_bytes=longest)
            ):
                self.lines.append(line)
                continue
            try:
                yield from self._read(index, text)
            except Unreadable as why:
                self.errors.append(ValidationError(f"/{index}", str(why)))
            if len(self.errors) >= MAX_ERRORS:
                return

    def read_array(self, items: Sequence[Any]) -> Incremental[None]:
        """Read an array's items in groups."""
        at, count, longest = 0, _GROUP_ITEMS, min(MAX_STEP_BYTES, self._limits.max_item_bytes)
        while at < len(items) and len(self.errors) < MAX_ERRORS:
            if at:
                yield
            group = items[at : at + count]
            joined = b",".join(group)
            while len(joined) > longest and len(group) > 1:
                count = len(group) // 2
                group = group[:count]
                joined = b",".join(group)
            lines = None
            if len(joined) <= self._limits.max_item_bytes:
                lines = decode_items_fast(joined, count_brackets(joined), strict=self._strict)
            if lines is None:
                yield from self._read_one_by_one(at, group)
            else:
                self.lines += lines
            at += len(group)
            count = min(2 * count, _GROUP_ITEMS)

    def _read_one_by_one(self, at: int, group: Sequence[Any]) -> Incremental[None]:
        """Read the items of a group one by one. As a whole they were not ordinary usages."""
        tried = len(group) == 1
        for index, item in enumerate(group, at):
            wrong = ""
            try:
                yield from self._read(index, bytes(item), tried=tried)
            except NotJson as why:
                wrong = str(why)
            except Unreadable as why:
                self.errors.append(ValidationError(f"/{index}", str(why)))
            if wrong:
                # Not a fault of one usage: what is no JSON in one place is none as a whole.
                raise MalformedBody(f"The usage at index {index} {wrong}.")
            if len(self.errors) >= MAX_ERRORS:
                return

    def _read(self, index: int, raw: bytes, *, tried: bool = False) -> Incremental[None]:
        most = self._limits.max_item_bytes
        if len(raw) > most:
            self.errors.append(ValidationError(f"/{index}", f"is larger than {most} bytes"))
            return
        try:
            line = yield from read_line(raw, strict=self._strict, tried=tried)
            self.lines.append(line)
        except InvalidUsage as why:
            self.errors += [
                ValidationError(f"/{index}{pointer}", text) for pointer, text in why.errors
            ]
