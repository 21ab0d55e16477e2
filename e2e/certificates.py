"""Create a CA and a certificate for a server in the cluster, with openssl."""

import subprocess
from pathlib import Path
from typing import NamedTuple

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
subjectAltName = DNS:{host}
authorityKeyIdentifier = keyid
"""
CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class CertificateFiles(NamedTuple):
    """A CA, a certificate and its key, in PEM."""

    ca: str
    certificate: str
    key: str


def make_certificates(folder: Path, host: str) -> CertificateFiles:
    """Create a CA and a certificate for a host, for this run only."""
    folder.mkdir()
    (folder / "config").write_text(CONFIG.format(host=host))
    options = (*CURVE, "-days", "2", "-config", "config")
    _run_openssl(
        folder, "req", "-x509", *options, "-extensions", "ca", "-keyout", "ca.key", "-out", "ca"
    )
    signed = ("-CA", "ca", "-CAkey", "ca.key", "-extensions", "server")
    _run_openssl(folder, "req", "-x509", *options, *signed, "-keyout", "key", "-out", "certificate")
    return CertificateFiles(*((folder / field).read_text() for field in CertificateFiles._fields))


def _run_openssl(folder: Path, *arguments: str) -> None:
    command = ["openssl", *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=30)
