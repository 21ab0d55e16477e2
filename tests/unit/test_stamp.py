"""A stamp behind a usage: it is split exactly, whatever the usage and the tenant contain."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busyapi.ids import UsageId
from busyapi.stamp import (
    MAX_TENANT_CHARACTERS,
    Stamp,
    StampedUsage,
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
