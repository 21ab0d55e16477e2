"""Which usages a credential may read."""

from dataclasses import replace

import pytest

from busyapi.api.read_access import may_read
from busyapi.api.stamper import Stamper
from busyapi.auth.credential import Credential
from busyapi.stamp import Stamp, split_stamp

STAMPER = Stamper(b"0123456789abcdef0123456789abcdef")
WRITER = Credential("writer", "writer", frozenset({"write"}), "clinic-7")


def stamp_of(credential: Credential) -> Stamp | None:
    return split_stamp(b"{}" + STAMPER.encode(credential)).stamp


STAMP = stamp_of(WRITER)


def reader(scopes: str, credential_id: str = "reader", tenant: str = "") -> Credential:
    return Credential(credential_id, "reader", frozenset(scopes.split(",")), tenant)


@pytest.mark.parametrize(
    ("credential", "allowed"),
    [
        (reader("read"), True),
        (reader("read,read:own"), True),
        (reader("read:own", "writer"), True),
        (reader("read:own", "writer", "clinic-8"), True),
        (reader("read:own"), False),
        (reader("read:own", tenant="clinic-7"), False),
        (reader("read:tenant", tenant="clinic-7"), True),
        (reader("read:tenant", "writer", "clinic-8"), False),
        (reader("read:tenant"), False),
        (reader("read:own,read:tenant", tenant="clinic-7"), True),
        (reader("read:own,read:tenant", "writer"), True),
        (reader("read:own,read:tenant", tenant="clinic-8"), False),
        (reader("write,erase,admin", "writer", "clinic-7"), False),
    ],
)
def test_scopes_decide_by_writer_and_tenant(credential: Credential, allowed: bool) -> None:  # noqa: FBT001 - a parameter of the test
    assert may_read(credential, STAMP, STAMPER) is allowed


@pytest.mark.parametrize("tenant", ["", "clinic-7"])
def test_usage_without_a_stamp_needs_the_scope_read(tenant: str) -> None:
    assert not may_read(reader("read:own,read:tenant", "writer", tenant), None, STAMPER)
    assert may_read(reader("read"), None, STAMPER)


def test_usage_without_a_tenant_belongs_to_no_tenant() -> None:
    stamp = stamp_of(replace(WRITER, tenant=""))
    for tenant in ("", "clinic-7"):
        assert not may_read(reader("read:tenant", tenant=tenant), stamp, STAMPER)


def test_without_a_salt_only_the_tenant_is_recognized() -> None:
    assert not may_read(reader("read:own", "writer"), STAMP, None)
    assert may_read(reader("read:tenant", tenant="clinic-7"), STAMP, None)
