"""A stack that requires a credential to write."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from perf.load import Load
from perf.stack import BusyapiStack
from testkit.jwt_issuer import RSA, Issuer

TOKEN = "busyapi_" + "x" * 43


class GuardedStack(BusyapiStack):
    """A stack whose clients have a token or a JWT (RS256, about 700 bytes). Reading is open."""

    def __init__(self, folder: Path, kind: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        settings = {"BUSYAPI_ANONYMOUS": "read"}
        path = folder / "credentials"
        if kind == "token":
            digest = sha256(TOKEN.encode()).hexdigest()
            path.write_text(f'[tokens.bench]\nsha256 = "{digest}"\nscopes = ["write"]\n')
            settings["BUSYAPI_TOKENS_FILE"] = str(path)
            self._token = TOKEN
        else:
            issuer = Issuer(RSA)
            path.write_text(issuer.key_set())
            settings |= issuer.settings(str(path))
            self._token = issuer.issue(exp=2**32, jti="x" * 36, tenant="north")
        super().__init__(folder, apis=1, settings=settings)

    def authorize(self, load: Load) -> Load:
        """Return the load with the credential."""
        return replace(load, authorization=f"Bearer {self._token}")
