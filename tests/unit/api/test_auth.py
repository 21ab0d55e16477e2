"""What the authorizer allows, and which posts the fast path may accept."""

from hashlib import sha256

import pytest

from busyapi.api.auth import RequestAuthorizer
from busyapi.api.client_limits import ClientLimits
from busyapi.api.portion_pool import PortionPool
from busyapi.api.request_head import (
    AUTHORIZATION,
    CERTIFICATE,
)
from busyapi.auth.authenticator import Authenticator
from busyapi.auth.credential import Credential
from busyapi.auth.proxies import parse_trusted_proxies
from busyapi.auth.token_file import CredentialFile
from busyapi.settings import Settings
from busyapi.stream.rate_buckets import RateBuckets
from busyapi.stream.redis_url import parse_redis_url

WRITER = Credential("w", "writer", frozenset({"write"}))
READER = Credential("r", "reader", frozenset({"read"}))


def make_authenticator(**tokens: Credential) -> Authenticator:
    rows = {sha256(token.encode()).digest(): entry for token, entry in tokens.items()}
    return Authenticator(CredentialFile(rows))


@pytest.mark.parametrize(
    ("setting", "scopes"),
    [("", set()), ("write", {"write"}), ("read", {"read"}), ("write,read", {"write", "read"})],
)
def test_without_a_credential_a_request_has_the_scopes_of_the_setting(
    setting: str, scopes: set[str]
) -> None:
    settings = Settings.from_environment({"BUSYAPI_ANONYMOUS": setting})
    assert settings.anonymous_scopes == scopes
    assert RequestAuthorizer(anonymous=settings.anonymous_scopes).anonymous.scopes == scopes


def test_by_default_nothing_is_allowed() -> None:
    assert Settings().anonymous_scopes == frozenset()
    assert RequestAuthorizer().find_writer(None, 0) is None


def test_an_open_process_knows_every_writer() -> None:
    authorizer = RequestAuthorizer(anonymous=("write", "read"))
    for kinds in (0, AUTHORIZATION, CERTIFICATE):
        assert authorizer.find_writer(None, kinds) is authorizer.anonymous
    assert not authorizer.is_limited(authorizer.anonymous)


async def test_a_writer_is_known_once_its_token_was_verified() -> None:
    authenticator = make_authenticator(w=WRITER, r=READER)
    authorizer = RequestAuthorizer(authenticator, anonymous=())
    assert authorizer.find_writer(b"Bearer w", 0) is None
    for token in (b"Bearer w", b"Bearer r"):
        await authenticator.authenticate(token)
    assert authorizer.find_writer(b"Bearer w", 0) is WRITER
    assert authorizer.find_writer(b"bearer w", 0) is None, "other bytes"
    assert authorizer.find_writer(b"Bearer r", 0) is None, "it may not write"
    assert authorizer.find_writer(b"Bearer w", AUTHORIZATION) is None, "there are two"
    assert authorizer.find_writer(None, 0) is None
    assert authorizer.find_writer(None, AUTHORIZATION) is None


async def test_a_process_with_tokens_may_be_open_to_others() -> None:
    authorizer = RequestAuthorizer(make_authenticator(w=WRITER), anonymous=("write",))
    assert authorizer.find_writer(None, 0) is authorizer.anonymous
    assert authorizer.find_writer(None, AUTHORIZATION) is None, "it is read by Sanic's route"
    assert authorizer.find_writer(b"Bearer unknown", 0) is None


def make_limits(rate: float) -> ClientLimits:
    """Return limits of a process that has not connected to Redis yet."""
    return ClientLimits(PortionPool([RateBuckets(parse_redis_url("redis://127.0.0.1:1"), 0)]), rate)


async def test_before_redis_answers_each_credential_has_its_credit() -> None:
    authorizer = RequestAuthorizer(limits=make_limits(0.5))
    slow = Credential("slow", "slow", frozenset({"write"}))
    quick = Credential("quick", "quick", frozenset({"write"}), rate=100.0)
    of_tenant = Credential("t", "t", frozenset({"write"}), "north", rate=100.0, tenant_rate=1.0)
    credentials = (slow, quick, of_tenant, authorizer.anonymous)
    assert all(authorizer.is_limited(entry) for entry in credentials)
    count = {
        entry.id: sum(authorizer.charge_usage(entry, "10.0.0.1") for _ in range(9))
        for entry in credentials
    }
    assert count == {"slow": 1, "quick": 4, "t": 1, "": 1}


async def test_behind_a_proxy_only_the_route_charges_clients_without_a_credential() -> None:
    proxies = parse_trusted_proxies("10.0.0.0/8")
    authorizer = RequestAuthorizer(limits=make_limits(100), proxies=proxies)
    assert not authorizer.charge_usage(authorizer.anonymous, "10.0.0.1")
    assert authorizer.charge_usage(WRITER, "10.0.0.1")


async def test_header_lines_name_each_limit_of_a_client() -> None:
    authorizer = RequestAuthorizer(limits=make_limits(0.25))
    credential = Credential("t", "t", frozenset({"write"}), "north", tenant_rate=1000.0)
    assert authorizer.render_limits(credential, "").decode().split("\r\n") == [
        "",
        'ratelimit-policy: "credential";q=1;w=4;qu="usages", "tenant";q=2000;w=2;qu="usages"',
        'ratelimit: "credential";r=1;t=0, "tenant";r=2000;t=0',
    ]
    assert authorizer.charge_usage(authorizer.anonymous, "10.0.0.1")
    assert authorizer.render_limits(authorizer.anonymous, "10.0.0.1").decode().split("\r\n") == [
        "",
        'ratelimit-policy: "address";q=1;w=4;qu="usages"',
        'ratelimit: "address";r=0;t=4',
    ]


async def test_a_tenant_has_the_rate_of_the_file_or_the_default() -> None:
    file = CredentialFile(
        {
            sha256(tenant.encode()).digest(): Credential(tenant, tenant, frozenset(), tenant)
            for tenant in ("a", "b", "c", "")
        },
        tenants={"a": 5.0, "b": 0.0},
    )
    authenticator = Authenticator(file, tenant_rate=7.0)
    rates = [
        (await authenticator.authenticate(f"Bearer {tenant}".encode())).tenant_rate
        for tenant in ("a", "b", "c", "")
    ]
    assert rates == [5.0, 0.0, 7.0, 0.0]
