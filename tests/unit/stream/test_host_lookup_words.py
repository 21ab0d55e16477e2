"""Why a connection was closed, as its error says it."""

import ssl

import pytest

from busyapi.stream.host_lookup import describe_close


def make_alert(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}] as OpenSSL words it")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "it asks for a client certificate"),
        ("TLSV1_ALERT_UNKNOWN_CA", "it refuses the client certificate"),
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", "certificate expired"),
    ],
)
def test_what_the_server_says_of_the_certificate_is_repeated(reason: str, words: str) -> None:
    assert words in describe_close(make_alert(reason), is_unanswered_tls=True)


def test_an_early_close_with_tls_may_be_because_of_the_certificate() -> None:
    for error in (ConnectionResetError(), None):
        assert "client certificate" in describe_close(error, is_unanswered_tls=True)
        assert "certificate" not in describe_close(error, is_unanswered_tls=False)
    assert describe_close(None, is_unanswered_tls=False) == "it closed the connection"
