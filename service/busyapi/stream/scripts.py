"""The Lua scripts, each an atomic step on one partition."""

from hashlib import sha1
from importlib.resources import files


class Script:
    """A script by its digest. A wire loads every script when it connects."""

    def __init__(self, name: str) -> None:
        self.source = (files("busyapi.stream") / f"{name}.lua").read_bytes()
        # Redis names scripts by SHA-1; it is not used for security.
        self.sha = sha1(self.source, usedforsecurity=False).hexdigest()


COMMIT = Script("commit")
KEYED = Script("keyed")
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
