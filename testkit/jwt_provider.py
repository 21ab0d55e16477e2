"""A real provider of JWTs: `oidc-provider-mock`, an OpenID provider that accepts any login.

Its ID tokens are RS256. Each start makes a new key, as a rotation does.
"""

import json
import os
import sys
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from testkit.child_process import Child
from testkit.http1 import Answer, fetch
from testkit.ports import reserve_port
from testkit.waiting import wait_until

CLIENT = "busyapi"
REDIRECT = "http://127.0.0.1:1/callback"


class Provider(Child):
    """A provider on a port of its own. `users` are the claims of each subject."""

    def __init__(self, folder: Path, **users: dict[str, Any]) -> None:
        self.port = reserve_port()
        claims = [json.dumps({"sub": name, **more}) for name, more in users.items()]
        super().__init__(
            [
                *(sys.executable, "-W", "ignore", "-m", "oidc_provider_mock"),
                *("--host", "127.0.0.1", "--port", str(self.port)),
                *(word for user in claims for word in ("--user-claims", user)),
            ],
            log=folder / "provider.out",
            environment={**os.environ, "PYTHONWARNINGS": "ignore"},
        )

    @property
    def url(self) -> str:
        """Its address, which is also the issuer."""
        return f"http://127.0.0.1:{self.port}"

    def settings(self) -> dict[str, str]:
        """Return the settings of a process that accepts its tokens."""
        return {
            "BUSYAPI_JWT_KEYS": f"{self.url}/jwks",
            "BUSYAPI_JWT_ISSUER": self.url,
            "BUSYAPI_JWT_AUDIENCE": CLIENT,
        }

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.spawn()
        wait_until(lambda: self.check_alive() and self._answers(), f"{self} to answer", seconds=30)

    def _answers(self) -> bool:
        try:
            return fetch(self.port, "/jwks").status == 200
        except (OSError, HTTPException):
            return False

    def log_in(self, subject: str) -> str:
        """Return an ID token of a user (RFC 6749, section 4.1)."""
        query = {
            "client_id": CLIENT,
            "response_type": "code",
            "redirect_uri": REDIRECT,
            "scope": "openid",
        }
        answer = self._post(f"/oauth2/authorize?{urlencode(query)}", {"sub": subject})
        code = parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]
        grant = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": REDIRECT,
            "client_id": CLIENT,
            "client_secret": "any",
        }
        token: str = self._post("/oauth2/token", grant).json()["id_token"]
        return token

    def _post(self, path: str, fields: dict[str, str]) -> Answer:
        headers = {"content-type": "application/x-www-form-urlencoded"}
        body = urlencode(fields).encode()
        return fetch(self.port, path, method="POST", body=body, headers=headers)
