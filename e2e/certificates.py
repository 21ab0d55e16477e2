"""A CA and what it signed, for a server in the cluster, made by openssl."""

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


class Signed(NamedTuple):
    """PEM, as text."""

    ca: str
    certificate: str
    key: str


def make(folder: Path, host: str) -> Signed:
    """Make an authority and a certificate for a host; only this run knows them."""
    folder.mkdir()
    (folder / "config").write_text(CONFIG.format(host=host))
    ours = (*CURVE, "-days", "2", "-config", "config")
    _openssl(folder, "req", "-x509", *ours, "-extensions", "ca", "-keyout", "ca.key", "-out", "ca")
    signed = ("-CA", "ca", "-CAkey", "ca.key", "-extensions", "server")
    _openssl(folder, "req", "-x509", *ours, *signed, "-keyout", "key", "-out", "certificate")
    return Signed(*((folder / field).read_text() for field in Signed._fields))


def _openssl(folder: Path, *arguments: str) -> None:
    command = ["openssl", *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=30)
