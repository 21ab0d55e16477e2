"""Which usages a credential may read."""

from dataclasses import replace

import pytest

from busyapi.api.read_access import may_read, reads_all
from busyapi.api.stamper import Stamper
from busyapi.auth.credential import Credential
from busyapi.ids import UsageId
from busyapi.stamp import StampedUsage, split_archived_stamp
from busyapi.usage_json import render_usage

STAMPER = Stamper(b"0123456789abcdef0123456789abcdef")
WRITER = Credential("writer", "writer", frozenset({"write"}), "clinic-7")


def post(credential: Credential | None, usage: bytes = b'{"patientId":"100"}') -> StampedUsage:
    """Return a usage as a lookup finds it; without a credential it has no stamp."""
    stamp = STAMPER.encode(credential) if credential else b""
    return split_archived_stamp(render_usage(UsageId(7), 0, usage + stamp))


USAGE, UNSTAMPED = post(WRITER), post(None)


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
    assert may_read(credential, USAGE, STAMPER) is allowed


@pytest.mark.parametrize("tenant", ["", "clinic-7"])
def test_usage_without_a_stamp_needs_the_scope_read(tenant: str) -> None:
    assert not may_read(reader("read:own,read:tenant", "writer", tenant), UNSTAMPED, STAMPER)
    assert may_read(reader("read"), UNSTAMPED, STAMPER)


def test_usage_without_a_tenant_belongs_to_no_tenant() -> None:
    usage = post(replace(WRITER, tenant=""))
    for tenant in ("", "clinic-7"):
        assert not may_read(reader("read:tenant", tenant=tenant), usage, STAMPER)


def test_without_a_salt_only_the_tenant_is_recognized() -> None:
    assert not may_read(reader("read:own", "writer"), USAGE, None)
    assert may_read(reader("read:tenant", tenant="clinic-7"), USAGE, None)


@pytest.mark.parametrize(
    ("usage", "allowed"),
    [
        (b'{"patientId":"100"}', True),
        (b'{"patientId":100,"more":{"patientId":"7"}}', True),
        (b'{"patientId":"7","more":{"patientId":"100"}}', False),
        (b'{"patientId":"1000"}', False),
        (b'{"patientId":["100"]}', False),
        (b'{"patientId":null}', False),
        (b"{}", False),
    ],
)
@pytest.mark.parametrize("scope", ["read", "read:own", "read:tenant"])
def test_a_credential_bound_to_a_patient_reads_that_patient_only(
    scope: str,
    usage: bytes,
    allowed: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    bound = replace(reader(scope, "writer", "clinic-7"), patient_id="100")
    assert may_read(bound, post(WRITER, usage), STAMPER) is allowed
    assert may_read(bound, post(None, usage), STAMPER) is (allowed and scope == "read")
    assert may_read(replace(bound, patient_id=None), post(WRITER, usage), STAMPER)


def test_only_the_scope_read_without_a_patient_reads_all() -> None:
    assert reads_all(reader("read"))
    assert not reads_all(reader("read:own,read:tenant", "writer", "clinic-7"))
    assert not reads_all(replace(reader("read"), patient_id="100"))
