"""The Lua scripts, each an atomic step on one partition."""

from hashlib import sha1
from importlib.resources import files


class Script:
    """A script by its digest. A wire loads every script when it connects."""

    def __init__(self, *names: str) -> None:
        """Read a script; of several names each but the last is what stands before it."""
        folder = files("busyapi.stream")
        self.source = b"".join((folder / f"{name}.lua").read_bytes() for name in names)
        # Redis names scripts by SHA-1; it is not used for security.
        self.sha = sha1(self.source, usedforsecurity=False).hexdigest()


COMMIT = Script("checked", "commit")
KEYED = Script("checked", "keyed")
KEYS = Script("keys")
GIVEKEYS = Script("givekeys")
FORGETKEYS = Script("forgetkeys")
PUBLISH = Script("publish")
LEASE = Script("lease")
RELEASE = Script("release")
READ = Script("read")
SEED = Script("seed")
UNSEED = Script("unseed")
DOUBT = Script("doubt")
FENCE = Script("fence")
REMEMBER = Script("remember")
ALL = (
    *(COMMIT, KEYED, REMEMBER, UNSEED),
    *(FENCE, PUBLISH, LEASE, RELEASE, READ, SEED, DOUBT, KEYS, GIVEKEYS, FORGETKEYS),
)
