"""Batches: a JSON array, or one JSON text a line (NDJSON). All usages are accepted, or none.

    array ──> pieces, each decoded in one call (`fast_array`) ──────────────────> lines
      └─ if that fails ─> unparsed items ──> groups, each decoded in one call ──> lines
    NDJSON ─────────────> lines of text ───> one by one ────────────────────────> lines

A group is at most MAX_STEP_BYTES bytes, or one item; the work yields between groups. An item with
errors, or each item of a group that cannot be decoded in one call, is decoded alone, and its errors
are reported.
"""

import re
from collections.abc import Sequence
from itertools import accumulate, compress, pairwise
from typing import Any, NamedTuple

from busyapi.decode.device_time import has_plausible_time
from busyapi.decode.diagnose import (
    BYTE_ORDER_MARK,
    MAX_ERRORS,
    NotJson,
    Unreadable,
    find_member_errors,
)
from busyapi.decode.fast_array import decode_array_fast, parse_items, render_items
from busyapi.decode.incremental import Incremental
from busyapi.decode.limits import (
    MAX_STEP_BYTES,
    TOO_DENSE,
    count_brackets,
    count_containers,
    max_containers_in_batch,
    scan_numbers,
)
from busyapi.decode.split import split_array
from busyapi.decode.surrogates import (
    find_marked_members,
    mark_unpaired,
    may_hold_surrogates,
    replace_marks,
)
from busyapi.decode.timestamp import is_plausible
from busyapi.decode.usage import decode_fast, read_line
from busyapi.decode.validation import (
    convert_whole_numbers,
    is_object,
    is_ordinary_usage,
)
from busyapi.errors import InvalidUsage, MalformedBody, ValidationError

_SLOW_FACTOR = 4
"""How many times as long as the fast decoder the full parser takes for a byte, at most."""
_BLANKS = b" \t\r\n"
_BLANK_LINES = re.compile(rb"\n(?:[ \t\r]*+\n)++")
_GROUP_ITEMS = 256
"""Items in a group. Ordinary usages make this about MAX_STEP_BYTES bytes."""


class BatchLimits(NamedTuple):
    """The limits of one batch."""

    max_items: int
    max_item_bytes: int
    """Bytes of one usage, as sent."""


class DecodedBatch(NamedTuple):
    """The lines of a batch, in the order sent."""

    lines: list[bytes]
    implausible_times: Sequence[int] = ()
    """The indexes of strictly validated lines with such a time: see `device_time`."""


def decode_batch(
    raw: bytes, *, ndjson: bool, strict: bool, limits: BatchLimits
) -> Incremental[DecodedBatch]:
    """Return the line of each usage.

    Raises:
        MalformedBody: the body as a whole is not a JSON array in UTF-8.
        InvalidUsage: the errors of every invalid item, by its index, up to MAX_ERRORS; or one
            error at pointer "" for no usage, too many usages, or too many brackets.
    """
    if len(raw) > MAX_STEP_BYTES:
        yield
    if ndjson:
        items: Sequence[Any] = _split_lines(raw, limits.max_items)
    else:
        raw = raw.removeprefix(BYTE_ORDER_MARK)
        max_bytes = min(MAX_STEP_BYTES, limits.max_item_bytes)
        lines = yield from decode_array_fast(raw, limits.max_items, max_bytes, strict=strict)
        if lines:
            return DecodedBatch(lines)
        items = yield from split_array(raw, limits.max_items)
    _check_count(len(items), limits.max_items)
    max_containers = max_containers_in_batch(len(raw), len(items))
    if len(raw) > MAX_STEP_BYTES:
        yield
    if count_brackets(raw) > max_containers:
        yield from _check_density(items, max_containers, limits.max_item_bytes)
    reader = _BatchReader(limits, strict=strict)
    yield from reader.read_lines(items) if ndjson else reader.read_array(items)
    if reader.errors:
        raise InvalidUsage(reader.errors[:MAX_ERRORS])
    return DecodedBatch(reader.lines, sorted(reader.implausible_times))


def _split_lines(raw: bytes, max_items: int) -> list[bytes]:
    """Split a body at its newlines: parsed together, two broken lines could form a valid usage.

    Blank lines are left out and do not count.
    """
    raw = raw.strip(_BLANKS)
    if raw.count(b"\n") >= max_items:
        # Before splitting: four million empty lines would be four million objects.
        raw = _BLANK_LINES.sub(b"\n", raw)
        _check_count(raw.count(b"\n") + 1, max_items)
    return [text for text in raw.split(b"\n") if text.strip(_BLANKS)]


def _check_count(count: int, max_items: int) -> None:
    if not 1 <= count <= max_items:
        raise InvalidUsage([ValidationError("", f"must hold 1 to {max_items} usages")])


def _check_density(
    items: Sequence[Any], max_containers: int, max_item_bytes: int
) -> Incremental[None]:
    """Count the brackets outside strings, in all items that are not refused for their size."""
    containers = size = 0
    for item in items:
        length = memoryview(item).nbytes
        if length <= max_item_bytes:
            containers += count_containers(bytes(item))
            size += length
        if containers > max_containers:
            raise InvalidUsage([ValidationError("", TOO_DENSE)])
        if size > MAX_STEP_BYTES:
            size = 0
            yield


class _BatchReader:
    """The state of decoding one batch: its lines so far, and its errors."""

    def __init__(self, limits: BatchLimits, *, strict: bool) -> None:
        self._limits = limits
        self._strict = strict
        self.lines: list[bytes] = []
        self.errors: list[ValidationError] = []
        self.implausible_times: list[int] = []

    def read_lines(self, texts: Sequence[bytes]) -> Incremental[None]:
        """Decode lines of text one by one."""
        size, strict, max_bytes = 0, self._strict, self._limits.max_item_bytes
        for index, text in enumerate(texts):
            size += len(text)
            if size > MAX_STEP_BYTES and index:
                yield
                size = len(text)
            if len(text) <= max_bytes and (line := decode_fast(text, strict=strict)):
                self.lines.append(line)
                continue
            size += _SLOW_FACTOR * len(text)
            try:
                yield from self._read(index, text)
            except Unreadable as error:
                self.errors.append(ValidationError(f"/{index}", str(error)))
            if len(self.errors) >= MAX_ERRORS:
                return

    def read_array(self, items: Sequence[Any]) -> Incremental[None]:
        """Decode an array's items in groups."""
        at, count = 0, _GROUP_ITEMS
        max_group_bytes = min(MAX_STEP_BYTES, self._limits.max_item_bytes)
        while at < len(items) and len(self.errors) < MAX_ERRORS:
            if at:
                yield
            group = items[at : at + count]
            joined = b",".join(group)
            while len(joined) > max_group_bytes and len(group) > 1:
                count = len(group) // 2
                group = group[:count]
                joined = b",".join(group)
            lines: Sequence[bytes | None] = [None] * len(group)
            if len(joined) <= self._limits.max_item_bytes:
                lines = (yield from self._decode_group(at, group, joined)) or lines
            yield from self._read_one_by_one(at, group, lines)
            at += len(group)
            count = min(2 * count, _GROUP_ITEMS)

    def _decode_group(
        self, at: int, group: Sequence[Any], joined: bytes
    ) -> Incremental[list[bytes | None] | None]:
        """Return a group's lines, with None for a usage to be read alone; None if all have to."""
        brackets, numbers, mark = count_brackets(joined), scan_numbers(joined), ""
        usages = parse_items(joined, brackets, numbers)
        if usages is None and may_hold_surrogates(joined) and not numbers.may_exceed_doubles:
            joined, mark = yield from mark_unpaired(joined)
            usages = parse_items(joined, brackets, numbers) if mark else None
            # A mark is as long as what it replaces.
            ends = list(accumulate(len(item) + 1 for item in group))
            group = [joined[a : b - 1] for a, b in pairwise((0, *ends))]
        if usages is None:
            return None
        is_good = [
            self._prepare(usage, item, mark) for usage, item in zip(usages, group, strict=True)
        ]
        rendered = render_items(list(compress(usages, is_good)), brackets)
        if rendered is None:
            return None
        if self._strict:
            self.implausible_times += [
                index
                for index, (usage, good) in enumerate(zip(usages, is_good, strict=True), at)
                if good and not is_plausible(usage["timestamp"])
            ]
        lines = iter(rendered)
        return [replace_marks(next(lines), mark) if good else None for good in is_good]

    def _prepare(self, usage: Any, item: Any, mark: str) -> bool:
        """Return whether a usage has no error, and make it ready to be rendered."""
        if not is_object(usage):
            return False
        if not self._strict or is_ordinary_usage(usage):
            return not find_marked_members(usage, mark)
        if find_member_errors(usage, item, mark, strict=True):
            return False
        convert_whole_numbers(usage)
        return True

    def _read_one_by_one(
        self, at: int, group: Sequence[Any], lines: Sequence[bytes | None]
    ) -> Incremental[None]:
        """Take the lines of a group, and decode alone each usage that has none."""
        size = 0
        for index, (item, line) in enumerate(zip(group, lines, strict=True), at):
            if line is not None:
                self.lines.append(line)
                continue
            syntax_error = ""
            size += _SLOW_FACTOR * len(item)
            if size > MAX_STEP_BYTES:
                yield
                size = _SLOW_FACTOR * len(item)
            try:
                yield from self._read(index, bytes(item))
            except NotJson as error:
                syntax_error = str(error)
            except Unreadable as error:
                self.errors.append(ValidationError(f"/{index}", str(error)))
            if syntax_error:
                # Not an error of one usage: one invalid item makes the whole array invalid JSON.
                raise MalformedBody(f"The usage at index {index} {syntax_error}.")
            if len(self.errors) >= MAX_ERRORS:
                return

    def _read(self, index: int, raw: bytes) -> Incremental[None]:
        max_bytes = self._limits.max_item_bytes
        if len(raw) > max_bytes:
            self.errors.append(ValidationError(f"/{index}", f"is larger than {max_bytes} bytes"))
            return
        try:
            line = yield from read_line(raw, strict=self._strict)
            # The fast decoder accepts only usages with a plausible time.
            if self._strict and not has_plausible_time(line):
                self.implausible_times.append(index)
            self.lines.append(line)
        except InvalidUsage as error:
            self.errors += [
                ValidationError(f"/{index}{pointer}", detail) for pointer, detail in error.errors
            ]
