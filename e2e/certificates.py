"""Create CAs and certificates for servers in the cluster, with openssl."""

import socket
import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple

from testkit.http1 import Tls

CONFIG = """\
[req]
distinguished_name = name
prompt = no
[name]
CN = busyapi tests
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[server]
subjectAltName = {name}
authorityKeyIdentifier = keyid
"""
CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class CertificateFiles(NamedTuple):
    """A CA, a certificate and its key, in PEM."""

    ca: str
    certificate: str
    key: str


class Authority:
    """A CA in a folder of its own, for this run only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._create("DNS:none", "-extensions", "ca", "-keyout", "ca.key", "-out", "ca")

    @property
    def ca(self) -> Path:
        """The file with its own certificate."""
        return self.folder / "ca"

    def issue(self, name: str) -> CertificateFiles:
        """Return a new certificate for a subject alternative name, such as `DNS:example.org`."""
        signed = ("-CA", "ca", "-CAkey", "ca.key", "-extensions", "server")
        self._create(name, *signed, "-keyout", "key", "-out", "certificate")
        return CertificateFiles(
            *((self.folder / field).read_text() for field in CertificateFiles._fields)
        )

    def _create(self, name: str, *arguments: str) -> None:
        (self.folder / "config").write_text(CONFIG.format(name=name))
        options = (*CURVE, "-days", "2", "-config", "config")
        command = ["openssl", "req", "-x509", *options, *arguments]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True, timeout=30)


def make_certificates(folder: Path, host: str) -> CertificateFiles:
    """Create a CA and a certificate for a host."""
    return Authority(folder).issue(f"DNS:{host}")


def trust(ca: Path) -> ssl.SSLContext:
    """Return the settings of a client that trusts this CA only."""
    return ssl.create_default_context(cafile=ca)


def read_served_certificate(port: int, tls: Tls) -> str:
    """Return the certificate that a server on this machine shows, in PEM."""
    with (
        socket.create_connection(("127.0.0.1", port), 5) as plain,
        tls.context.wrap_socket(plain, server_hostname=tls.name) as connection,
    ):
        return ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True) or b"")
