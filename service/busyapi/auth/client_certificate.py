"""Client certificates that end at a proxy, which names them in headers.

    envoy   X-Forwarded-Client-Cert, also of Istio and other meshes built on Envoy
    nginx   ssl-client-verify and ssl-client-subject-dn, of ingress-nginx

Any client can send these headers, so they count only in requests of trusted proxies, and only in
the form of the setting: ingress-nginx passes on the header of Envoy, and Envoy those of
ingress-nginx.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from busyapi.auth.proxies import TrustedProxies
from busyapi.errors import ConfigError

XFCC = "x-forwarded-client-cert"
NGINX_VERIFY, NGINX_SUBJECT = "ssl-client-verify", "ssl-client-subject-dn"
VERIFIED, ABSENT = "SUCCESS", "NONE"

_PAIR = r'[A-Za-z]+=(?:"(?:[^"\\]|\\.)*+"|[^",;]*+)'
_ELEMENT = rf"{_PAIR}(?:;{_PAIR})*+"
_XFCC = re.compile(rf"{_ELEMENT}(?:,{_ELEMENT})*+")
_LAST = re.compile(rf"(?:{_ELEMENT},)*+")
_PAIRS = re.compile(r'([A-Za-z]+)=(?:"((?:[^"\\]|\\.)*+)"|([^",;]*+))')
_ESCAPED = re.compile(r"\\(.)")

ReadHeader = Callable[[str], Sequence[str]]
"""Returns the values of a header, by its name in lower case."""


class CertificateName(NamedTuple):
    """A name of a certificate: `uri` or `subject`, and its value."""

    kind: str
    value: str


class ClientCertificates:
    """Reads the names of client certificates from requests."""

    def __init__(self, form: str, proxies: TrustedProxies) -> None:
        """Read headers of this form.

        Raises:
            ConfigError: no proxy is trusted.
        """
        if not proxies:
            raise ConfigError(
                "BUSYAPI_CLIENT_CERTIFICATES needs BUSYAPI_TRUSTED_PROXIES: any client can send"
                " these headers"
            )
        self._read = {"envoy": _read_envoy, "nginx": _read_nginx}[form]
        self._proxies = proxies

    def read_names(self, peer: str, read_header: ReadHeader) -> list[CertificateName] | None:
        """Return the names of a request's certificate; None without one, [] for an invalid one."""
        return self._read(read_header) if self._proxies.includes(peer) else None


def _read_envoy(read_header: ReadHeader) -> list[CertificateName] | None:
    values = read_header(XFCC)
    return parse_xfcc(",".join(values)) if values else None


def parse_xfcc(text: str) -> list[CertificateName]:
    """Return the names in the last element: the certificate that the nearest proxy has verified.

    Elements before it were sent to that proxy.
    """
    if not _XFCC.fullmatch(text):
        return []
    element = text[_find_last(text) :]
    uris, subjects = [], []
    for key, quoted, plain in _PAIRS.findall(element):
        value = _ESCAPED.sub(r"\1", quoted) if quoted else plain
        if key.lower() == "uri" and value:
            uris.append(CertificateName("uri", value))
        elif key.lower() == "subject" and value:
            subjects.append(CertificateName("subject", value))
    return [*uris, *subjects]


def _find_last(text: str) -> int:
    """Return where the last element begins."""
    match = _LAST.match(text)
    return match.end() if match else 0


def _read_nginx(read_header: ReadHeader) -> list[CertificateName] | None:
    verified, subjects = read_header(NGINX_VERIFY), read_header(NGINX_SUBJECT)
    if not verified or [*verified] == [ABSENT]:
        return None
    if [*verified] != [VERIFIED] or len(subjects) != 1 or not subjects[0]:
        return []
    return [CertificateName("subject", subjects[0])]
