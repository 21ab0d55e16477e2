"""The names of a partition's keys in Redis. They are made here and nowhere else.

Every key holds the tag `{p}`, so that a partition lives in one slot of a cluster and a script
may touch all of it. The first word is the installation's prefix: two installations on one Redis
have different ones.

    busyapi:{0}:state     hash: epoch, run_id, partitions, bound, archived, skipped, …
    busyapi:{0}:seq       the last seq given out; INCRBY makes the next ones
    busyapi:{0}:stream    one entry a batch; its id is <last seq>-<number of usages>
    busyapi:{0}:lease     the flusher that owns the partition, with an expiry
    busyapi:{0}:lane:…    the last batch of one committer, so that a repeat is answered, not stored
    busyapi:{0}:keys:<0…3>  hashes: Idempotency-Keys and the answers they got, by age
    busyapi:{0}:keyed     one entry for each new key, until the archive has it
    busyapi:{0}:key:…     an Idempotency-Key as 0.2.0 kept it; read until it expires
    busyapi:{0}:probe     what WAITAOF is asked about: whether the server's log is in force
"""

import re
from dataclasses import dataclass

from busyapi.errors import ConfigError

IDEMPOTENCY_HASHES = 4
"""A generation of keys lasts a third of their time. When the fourth after it begins, three thirds
have passed since it ended, and its hash is emptied for that one."""
PREFIX = "busyapi"
"""The default, and the only one before 0.3.0."""
_PREFIX_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
"""Nothing that Redis Cluster takes for a hash tag, and nothing that an ACL takes for a pattern."""


@dataclass(frozen=True, slots=True)
class PartitionKeys:
    """The keys of one partition."""

    partition: int
    prefix: str = PREFIX

    def _key(self, name: str) -> str:
        return f"{self.prefix}:{{{self.partition}}}:{name}"

    @property
    def state(self) -> str:
        """The epoch record and the archive's cursor."""
        return self._key("state")

    @property
    def seq(self) -> str:
        """The counter."""
        return self._key("seq")

    @property
    def stream(self) -> str:
        """The buffer."""
        return self._key("stream")

    @property
    def lease(self) -> str:
        """The owner."""
        return self._key("lease")

    def committer(self, producer: str) -> str:
        """One committer's last batch: there from before its first commit."""
        return self._key(f"lane:{producer}")

    @property
    def new_idempotency_keys(self) -> str:
        """The new Idempotency-Keys that the archive does not have yet."""
        return self._key("keyed")

    @property
    def idempotency_hashes(self) -> list[str]:
        """The hashes of Idempotency-Keys: generation g is in `g % IDEMPOTENCY_HASHES`."""
        return [self._key(f"keys:{each}") for each in range(IDEMPOTENCY_HASHES)]

    @property
    def probe(self) -> str:
        """What is written to see whether the server's log is in force."""
        return self._key("probe")

    def legacy_idempotency_key(self, digest: str) -> str:
        """One Idempotency-Key as 0.2.0 kept it, by digest."""
        return self._key(f"key:{digest}")


def check_prefix(prefix: str) -> str:
    """Return the prefix.

    Raises:
        ConfigError: it cannot begin a key.
    """
    if not _PREFIX_PATTERN.fullmatch(prefix):
        raise ConfigError(
            "BUSYAPI_KEY_PREFIX must be 1 to 128 letters, digits, dots, colons, dashes or"
            " underscores, and begin with a letter or digit"
        )
    return prefix
