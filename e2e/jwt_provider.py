"""A real provider of JWTs on the cluster's machine: npm's oauth2-mock-server, with TLS.

Like most providers it is outside of the cluster. It publishes all its keys and signs with each in
turn, so a client asks until it has a token of the key that it wants.
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jwt
from jwt.algorithms import RSAAlgorithm

from e2e.certificates import Authority, trust
from e2e.target import ROOT
from testkit.child_process import Child
from testkit.http1 import Answer, Tls, fetch
from testkit.jwt_issuer import RSA, generate_key
from testkit.ports import reserve_port
from testkit.waiting import wait_until

SERVER = ROOT / "e2e" / "oauth2_server"
INSTALL_SECONDS = 300
AUDIENCE = "busyapi"
RATE = 1000
"""Usages per second of a client."""
ALGORITHM = RSA


def install_server() -> None:
    """Install the packages of the lock file, unless they are installed."""
    if not (SERVER / "node_modules" / "oauth2-mock-server").is_dir():
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=SERVER, check=True, timeout=INSTALL_SECONDS)


def has_node() -> bool:
    """Return whether this machine has what runs and installs the server."""
    return all(map(shutil.which, ("node", "npm")))


class JwtProvider(Child):
    """A provider at an address of this machine. A restart publishes the keys of `key_names`."""

    def __init__(self, folder: Path, address: str, authority: Authority) -> None:
        self.folder, self.address, self.port = folder, address, reserve_port()
        self.key_names: tuple[str, ...] = ("first",)
        self._keys: dict[str, dict[str, Any]] = {}
        self._tls = Tls(trust(authority.ca), address)
        files = authority.issue(f"IP:{address}")
        folder.mkdir()
        (folder / "tls.crt").write_text(files.certificate)
        (folder / "tls.key").write_text(files.key)
        super().__init__(
            ["node", SERVER / "serve.mjs", str(self.port), address, folder],
            log=folder / "provider.log",
        )

    @property
    def url(self) -> str:
        """Its address, which is also the issuer."""
        return f"https://{self.address}:{self.port}"

    def settings(self) -> dict[str, str]:
        """Return the values of `auth.jwt`, without the Secret of its CA."""
        return {"keys": f"{self.url}/jwks", "issuer": self.url, "audience": AUDIENCE}

    def start(self) -> None:
        """Start it with its keys, and wait until it answers."""
        install_server()
        self._write_keys()
        self.spawn()
        wait_until(lambda: self.check_alive() and self._answers(), f"{self} to answer", seconds=30)

    def _write_keys(self) -> None:
        keys = self.folder / "keys"
        shutil.rmtree(keys, ignore_errors=True)
        keys.mkdir()
        for name in self.key_names:
            key = self._keys.setdefault(name, make_key(name))
            (keys / f"{name}.json").write_text(json.dumps(key))

    def _answers(self) -> bool:
        try:
            return self._fetch("/jwks").status == 200
        except OSError:
            return False

    def issue(self, client: str, scope: str, *, key_name: str = "") -> str:
        """Return a token of a client (RFC 6749, section 4.4), signed with a key."""
        grant = {
            "grant_type": "client_credentials",
            "client_id": client,
            "scope": scope,
            "aud": AUDIENCE,
            "rate": str(RATE),
        }
        for _ in self.key_names:
            token: str = self._fetch("/token", urlencode(grant).encode()).json()["access_token"]
            if jwt.get_unverified_header(token)["kid"] == (key_name or self.key_names[-1]):
                return token
        raise AssertionError(f"no token of {key_name} in {len(self.key_names)} attempts")

    def _fetch(self, path: str, body: bytes | None = None) -> Answer:
        headers = {"content-type": "application/x-www-form-urlencoded"} if body else {}
        return fetch(
            self.port,
            path,
            method="POST" if body else "GET",
            body=body,
            headers=headers,
            host=self.address,
            tls=self._tls,
        )


def make_key(name: str) -> dict[str, Any]:
    """Return a new private key as a JSON Web Key."""
    key: dict[str, Any] = RSAAlgorithm.to_jwk(generate_key(ALGORITHM), as_dict=True)
    key.pop("key_ops", None)  # a provider publishes the key with it
    return key | {"kid": name, "alg": ALGORITHM, "use": "sig"}
