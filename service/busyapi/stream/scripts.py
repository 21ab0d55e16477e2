"""The Lua scripts. Each is one atomic step on one partition."""

from hashlib import sha1
from importlib.resources import files


class Script:
    """A script and its digest. A connection loads every script when it connects."""

    def __init__(self, *names: str) -> None:
        """Read a script and concatenate its files, in the order of `names`."""
        folder = files("busyapi.stream")
        self.source = b"".join((folder / f"{name}.lua").read_bytes() for name in names)
        # Redis identifies scripts by SHA-1. Security does not depend on it.
        self.sha1 = sha1(self.source, usedforsecurity=False).hexdigest()


COMMIT = Script("commit_checks", "commit")
COMMIT_KEYED = Script("commit_checks", "commit_keyed")
ROTATE_KEYS = Script("rotate_idempotency_keys")
RESTORE_KEYS = Script("restore_idempotency_keys")
DELETE_KEYS = Script("delete_idempotency_keys")
PUBLISH = Script("publish")
SET_LEASE = Script("set_lease")
RELEASE_LEASE = Script("release_lease")
READ_ENTRIES = Script("read_entries")
SEED = Script("seed")
REVOKE_SEEN_EPOCH = Script("revoke_seen_epoch")
RECORD_DOUBT = Script("record_doubt")
RECORD_REPLICAS = Script("record_replicas")
REVOKE_EPOCH = Script("revoke_epoch")
SET_EXPIRING = Script("set_expiring")
TAKE_RATE = Script("take_rate")
ALL_SCRIPTS = (
    *(COMMIT, COMMIT_KEYED, SET_EXPIRING, REVOKE_SEEN_EPOCH, TAKE_RATE),
    *(
        REVOKE_EPOCH,
        PUBLISH,
        SET_LEASE,
        RELEASE_LEASE,
        READ_ENTRIES,
        SEED,
        RECORD_DOUBT,
        RECORD_REPLICAS,
        ROTATE_KEYS,
        RESTORE_KEYS,
        DELETE_KEYS,
    ),
)
