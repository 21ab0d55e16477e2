"""The headers in which proxies name a client certificate."""

from collections.abc import Sequence

import pytest

from busyapi.auth.authenticator import Authenticator
from busyapi.auth.client_certificate import CertificateName, ClientCertificates, parse_xfcc
from busyapi.auth.credential import Credential
from busyapi.auth.proxies import TrustedProxies, parse_trusted_proxies
from busyapi.auth.token_file import CredentialFile
from busyapi.errors import ConfigError, InvalidCredential

PROXIES = parse_trusted_proxies("10.0.0.0/8")
PROXY, STRANGER = "10.0.0.1", "192.0.2.1"
URI = CertificateName("uri", "spiffe://cluster.local/ns/clinic/sa/gateway")
SUBJECT = CertificateName("subject", "CN=device-7,O=Clinic")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (f"By=spiffe://busyapi;Hash=abc;URI={URI.value}", [URI]),
        (f'Hash=abc;Subject="{SUBJECT.value}";URI={URI.value};DNS=a', [URI, SUBJECT]),
        (f'subject="{SUBJECT.value}"', [SUBJECT]),
        (f"URI={URI.value};URI=b", [URI, CertificateName("uri", "b")]),
        (f"URI=forged,URI={URI.value}", [URI]),
        (f'Subject="CN=a,URI=b;URI=\\"",URI={URI.value}', [URI]),
        (r'Subject="CN=a\"b\\c"', [CertificateName("subject", 'CN=a"b\\c')]),
        (f"URI={URI.value},Hash=abc", []),
        ("URI=", []),
        ('Subject=""', []),
        ("", []),
        (",", []),
        (f"URI={URI.value},", []),
        (f",URI={URI.value}", []),
        (f"URI={URI.value};", []),
        (f"URI={URI.value};;Hash=a", []),
        ('Subject="CN=a', []),
        (f'Subject="CN=a"URI={URI.value}', []),
        (f'X"URI={URI.value}', []),
        ("no pair", []),
    ],
)
def test_only_the_last_element_of_a_well_formed_header_counts(
    text: str, names: list[CertificateName]
) -> None:
    assert parse_xfcc(text) == names


def read(form: str, peer: str, **headers: Sequence[str]) -> list[CertificateName] | None:
    fields = {name.replace("_", "-"): values for name, values in headers.items()}
    return ClientCertificates(form, PROXIES).read_names(peer, lambda name: fields.get(name, []))


def test_headers_of_strangers_are_ignored() -> None:
    xfcc = [f"URI={URI.value}"]
    assert read("envoy", PROXY, x_forwarded_client_cert=xfcc) == [URI]
    assert read("envoy", f"::ffff:{PROXY}", x_forwarded_client_cert=xfcc) == [URI]
    assert read("envoy", STRANGER, x_forwarded_client_cert=xfcc) is None
    nginx = {"ssl_client_verify": ["SUCCESS"], "ssl_client_subject_dn": [SUBJECT.value]}
    assert read("nginx", PROXY, **nginx) == [SUBJECT]
    assert read("nginx", STRANGER, **nginx) is None


def test_headers_of_the_other_form_are_ignored() -> None:
    nginx = {"ssl_client_verify": ["SUCCESS"], "ssl_client_subject_dn": [SUBJECT.value]}
    assert read("envoy", PROXY, **nginx) is None
    assert read("nginx", PROXY, x_forwarded_client_cert=[f"URI={URI.value}"]) is None


def test_two_headers_of_envoy_are_one_list() -> None:
    values = ["URI=forged", f"URI={URI.value}"]
    assert read("envoy", PROXY, x_forwarded_client_cert=values) == [URI]


@pytest.mark.parametrize(
    ("verify", "subjects", "names"),
    [
        (["NONE"], [], None),
        ([], [SUBJECT.value], None),
        (["FAILED:certificate has expired"], [SUBJECT.value], []),
        (["success"], [SUBJECT.value], []),
        (["SUCCESS", "SUCCESS"], [SUBJECT.value], []),
        (["NONE", "SUCCESS"], [SUBJECT.value], []),
        (["SUCCESS"], [SUBJECT.value, "CN=other"], []),
        (["SUCCESS"], [""], []),
        (["SUCCESS"], [], []),
    ],
)
def test_nginx_must_have_verified_one_certificate(
    verify: list[str], subjects: list[str], names: list[CertificateName] | None
) -> None:
    assert read("nginx", PROXY, ssl_client_verify=verify, ssl_client_subject_dn=subjects) == names


def test_without_trusted_proxies_nothing_starts() -> None:
    with pytest.raises(ConfigError, match="BUSYAPI_TRUSTED_PROXIES"):
        ClientCertificates("envoy", TrustedProxies())


def test_a_name_has_the_credential_of_the_file_until_it_expires() -> None:
    valid = Credential("v", "valid", frozenset({"write"}))
    expired = Credential("e", "expired", frozenset({"write"}), expires_at=1.0)
    authenticator = Authenticator(CredentialFile(certificates={URI: valid, SUBJECT: expired}))
    other = CertificateName("uri", "other")
    assert authenticator.find_certificate([other, SUBJECT, URI]) is valid
    for names in ([], [other], [SUBJECT], [CertificateName("subject", URI.value)]):
        with pytest.raises(InvalidCredential):
            authenticator.find_certificate(names)
