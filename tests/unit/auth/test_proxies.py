"""Which proxies' X-Forwarded-For is used, and which of its addresses is the client's."""

import pytest

from busyapi.auth.proxies import MAX_FORWARDED, parse_trusted_proxies
from busyapi.errors import ConfigError

PROXIES = "10.0.0.0/8, 192.0.2.7,fd00::/8"


@pytest.mark.parametrize(
    ("peer", "values", "client"),
    [
        ("203.0.113.5", ["198.51.100.1"], "203.0.113.5"),
        ("10.1.2.3", [], "10.1.2.3"),
        ("10.1.2.3", ["198.51.100.1"], "198.51.100.1"),
        ("::ffff:10.1.2.3", ["198.51.100.1"], "198.51.100.1"),
        ("fd00::1", ["2001:db8::7"], "2001:db8::7"),
        ("10.1.2.3", ["6.6.6.6, 198.51.100.1"], "198.51.100.1"),
        ("10.1.2.3", ["6.6.6.6", "198.51.100.1"], "198.51.100.1"),
        ("10.1.2.3", ["6.6.6.6, 198.51.100.1, 192.0.2.7,10.9.9.9"], "198.51.100.1"),
        ("10.1.2.3", ["10.4.4.4"], "10.4.4.4"),
        ("10.1.2.3", ["198.51.100.1:4711"], "198.51.100.1"),
        ("10.1.2.3", ["[2001:db8::7]:4711"], "2001:db8::7"),
        ("10.1.2.3", ["198.51.100.1, unknown"], "10.1.2.3"),
        ("10.1.2.3", ["198.51.100.1, , 10.0.0.1"], "10.0.0.1"),
        ("10.1.2.3", [""], "10.1.2.3"),
        ("not an address", ["198.51.100.1"], "not an address"),
    ],
)
def test_the_client_is_the_last_address_that_is_no_proxy(
    peer: str, values: list[str], client: str
) -> None:
    assert parse_trusted_proxies(PROXIES).find_client(peer, values) == client


def test_only_so_many_addresses_are_read() -> None:
    values = ["198.51.100.1, " + ", ".join(["10.0.0.1"] * MAX_FORWARDED)]
    assert parse_trusted_proxies(PROXIES).find_client("10.0.0.2", values) == "10.0.0.1"


def test_without_the_setting_no_proxy_is_trusted() -> None:
    proxies = parse_trusted_proxies(" , ")
    assert not proxies
    assert proxies.find_client("127.0.0.1", ["198.51.100.1"]) == "127.0.0.1"


@pytest.mark.parametrize("text", ["proxy", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/8;10.1.0.0/16"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^BUSYAPI_TRUSTED_PROXIES: "):
        parse_trusted_proxies(text)
