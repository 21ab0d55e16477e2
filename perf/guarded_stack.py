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

    def __init__(self, folder: Path, kind: str, apis: int = 1) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        settings = {"BUSYAPI_ANONYMOUS": "read"}
        path = folder / "credentials"
        if kind == "token":
            digest = sha256(TOKEN.encode()).hexdigest()
            path.write_text(f'[tokens.bench]\nsha256 = "{digest}"\nscopes = ["write"]\n')
            settings["BUSYAPI_TOKENS_FILE"] = str(path)
            token = TOKEN
        else:
            issuer = Issuer(RSA)
            path.write_text(issuer.key_set())
            settings |= issuer.settings(str(path))
            token = issuer.issue(exp=2**32, jti="x" * 36, tenant="north")
        self.authorization = f"Bearer {token}"
        super().__init__(folder, apis, settings)

    def authorize(self, load: Load) -> Load:
        """Return the load with the credential."""
        return replace(load, authorization=self.authorization)
