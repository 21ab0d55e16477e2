"""A stamp behind a usage: it is split exactly, whatever the usage and the tenant contain."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busyapi.archive.archived_usage import parse_line, read_heads
from busyapi.errors import ArchiveDamaged
from busyapi.ids import UsageId
from busyapi.stamp import (
    MAX_TENANT_CHARACTERS,
    Stamp,
    StampedUsage,
    count_stamped_lines,
    encode_stamp,
    is_valid_tenant,
    split_archived_stamp,
    split_stamp,
)
from busyapi.usage_json import render_usage

WRITER = "8nC3hQ2vXr0aLw_K"
LIKE_A_STAMP = '},"writer":"8nC3hQ2vXr0aLw_K","tenant":"t"'

texts = st.text(max_size=20) | st.just(LIKE_A_STAMP) | st.just('"}') | st.just("\n\\")
values: Any = st.recursive(
    texts | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
# Also usages with members of the stamp's names, in its place.
usages = st.dictionaries(texts | st.sampled_from(["writer", "tenant"]), values, max_size=4).map(
    lambda usage: json.dumps(usage, separators=(",", ":"), ensure_ascii=False).encode()
)
stamps = st.builds(Stamp, st.from_regex(r"[A-Za-z0-9_-]{16}", fullmatch=True), texts)


@given(usages, stamps)
def test_usage_and_stamp_are_split_as_they_were_joined(usage: bytes, stamp: Stamp) -> None:
    line = usage + encode_stamp(stamp)
    assert b"\n" not in line.removeprefix(usage)
    assert split_stamp(line) == (usage, stamp)
    assert split_stamp(usage) == (usage, None)


@given(usages, stamps)
def test_archived_line_without_its_stamp_is_what_the_buffer_returns(
    usage: bytes, stamp: Stamp
) -> None:
    unstamped = render_usage(UsageId(7), 1, usage)
    stamped = render_usage(UsageId(7), 1, usage + encode_stamp(stamp))
    assert split_archived_stamp(unstamped) == StampedUsage(unstamped, None)
    assert split_archived_stamp(stamped) == StampedUsage(unstamped, stamp)
    members = json.loads(stamped)
    assert members["usage"] == json.loads(usage)
    assert members["writer"] == stamp.writer
    assert members.get("tenant", "") == stamp.tenant


@given(st.lists(st.tuples(usages, st.none() | stamps), max_size=4))
def test_stamped_lines_of_a_block_are_counted(rows: list[tuple[bytes, Stamp | None]]) -> None:
    lines = [
        render_usage(UsageId(number), 1, usage + (encode_stamp(stamp) if stamp else b"")) + b"\n"
        for number, (usage, stamp) in enumerate(rows, 1)
    ]
    assert count_stamped_lines(b"".join(lines)) == sum(stamp is not None for _, stamp in rows)
    heads = read_heads(b"".join(lines))
    assert heads is not None
    assert [head.id for head in heads] == list(range(1, len(rows) + 1))


LINE = (
    b'{"id":7,"receivedAt":"2026-11-01T00:20:09.600Z","usage":{"a":[1,"\xc3\xa9",{}]}'
    b',"writer":"%b","tenant":"t"}'
)


@given(st.data())
def test_lines_that_are_checked_together_are_refused_as_each_alone(data: st.DataObject) -> None:
    line = bytearray(LINE % WRITER.encode())
    at = data.draw(st.integers(0, len(line) - 1))
    line[at : at + data.draw(st.integers(0, 1))] = data.draw(
        st.sampled_from([bytes([code]) for code in b'{}[]",:0a.\\ \x00\x80']) | st.just(b"")
    )
    try:
        parse_line(bytes(line))
    except ArchiveDamaged:
        is_line = False
    else:
        is_line = True
    good = LINE % WRITER.encode() + b"\n"
    assert (read_heads(good + line + b"\n" + good) is not None) == is_line


@pytest.mark.parametrize(
    "suffix",
    [
        ',"writer":"8nC3hQ2vXr0aLw_"',
        ',"writer":"8nC3hQ2vXr0aLw_KK"',
        ',"writer":"8nC3hQ2vXr0aLw+K"',
        ',"writer":""',
        ',"tenant":"t"',
        ',"writer":"8nC3hQ2vXr0aLw_K","tenant":""',
        ',"writer":"8nC3hQ2vXr0aLw_K","tenant":"a"b"',
        ',"writer":"8nC3hQ2vXr0aLw_K","tenant":"\\x"',
        ',"writer":"8nC3hQ2vXr0aLw_K","clinic":"t"',
        ',"tenant":"t","writer":"8nC3hQ2vXr0aLw_K"',
        ',"writer": "8nC3hQ2vXr0aLw_K"',
        ',"writer":"8nC3hQ2vXr0aLw_K',
        '"',
        " ",
    ],
)
def test_anything_else_behind_a_usage_is_refused(suffix: str) -> None:
    for usage in ('{"a":1}', '{"a":{}}', "", '{"a":"b"'):
        with pytest.raises(ValueError, match=r"stamp|escape"):
            split_stamp((usage + suffix).encode())


@pytest.mark.parametrize("tenant", ["x" * (MAX_TENANT_CHARACTERS + 1), "\ud800"])
def test_tenant_that_no_line_can_hold_is_refused(tenant: str) -> None:
    assert not is_valid_tenant(tenant)
    with pytest.raises(ValueError, match="tenant"):
        encode_stamp(Stamp(WRITER, tenant))


@pytest.mark.parametrize("tenant", ["", "x" * MAX_TENANT_CHARACTERS, "Klinik Süd", "\U0001f600"])
def test_other_tenants_are_valid(tenant: str) -> None:
    assert is_valid_tenant(tenant)
