"""The names of a partition's keys in Redis. Only this module makes them.

Every key contains the hash tag `{p}`, so that a partition is in one slot of a cluster and a script
may access all of its keys. The first word is the installation's prefix: two installations on one
Redis have different prefixes.

    busyapi:{0}:state     hash: epoch, run_id, partitions, bound, archived, skipped, …
    busyapi:{0}:seq       the last issued seq; INCRBY issues the next ones
    busyapi:{0}:stream    one entry per batch; its id is <last seq>-<number of usages>
    busyapi:{0}:lease     the flusher that owns the partition, with an expiry
    busyapi:{0}:lane:…    the last batch of one committer, which detects a retry
    busyapi:{0}:keys:<0…3>  hashes: Idempotency-Keys and the seqs of their usages, by age
    busyapi:{0}:keyed     one entry per new key, until the archive has it
    busyapi:{0}:key:…     an Idempotency-Key that 0.2.0 wrote; read until it expires
    busyapi:{0}:rate:…    the bucket of a credential's or a tenant's rate, with an expiry
    busyapi:{0}:replicas  which replicas must confirm; one key for each server, see `replicas`
    busyapi:{0}:handover  the primary that asks to be replaced, with an expiry; also for each server
    busyapi:{0}:probe     a small write that shows whether the append-only file is active
"""

import re
from dataclasses import dataclass

from busyapi.errors import ConfigError

IDEMPOTENCY_HASHES = 4
"""A generation of keys lasts a third of their TTL. When the fourth generation after it begins,
three thirds have passed since it ended, and its hash is emptied for the new one."""
PREFIX = "busyapi"
"""The default, and the only prefix before 0.3.0."""
_PREFIX_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
"""Excludes the characters of a Redis Cluster hash tag and those of an ACL pattern."""


@dataclass(frozen=True, slots=True)
class PartitionKeys:
    """The names of the keys of one partition."""

    partition: int
    prefix: str = PREFIX
    decider: int | None = None
    """The partition whose flusher decides which replicas must confirm, None for this one. All
    partitions of one server have the same, so that one flusher decides."""

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
        """The owner's token."""
        return self._key("lease")

    def committer(self, committer_id: str) -> str:
        """Return the key of one committer's last batch, which exists before its first commit."""
        return self._key(f"lane:{committer_id}")

    @property
    def new_idempotency_keys(self) -> str:
        """The stream of Idempotency-Keys that the archive does not have yet."""
        return self._key("keyed")

    @property
    def idempotency_hashes(self) -> list[str]:
        """The hashes of Idempotency-Keys: generation g is in hash `g % IDEMPOTENCY_HASHES`."""
        return [self._key(f"keys:{index}") for index in range(IDEMPOTENCY_HASHES)]

    @property
    def probe(self) -> str:
        """The key that is written to check whether the append-only file is active."""
        return self._key("probe")

    @property
    def is_decider(self) -> bool:
        """Return whether this partition's flusher decides which replicas must confirm."""
        return self.decider in {None, self.partition}

    @property
    def replicas(self) -> str:
        """The record of the replicas that must confirm."""
        return self._decider_key("replicas")

    @property
    def handover(self) -> str:
        """The address of the primary that asks to be replaced, see `handover`."""
        return self._decider_key("handover")

    def _decider_key(self, name: str) -> str:
        decider = self.partition if self.decider is None else self.decider
        return f"{self.prefix}:{{{decider}}}:{name}"

    def rate_bucket(self, digest: str) -> str:
        """Return the key of a credential's or a tenant's bucket, by digest."""
        return self._key(f"rate:{digest}")

    def legacy_idempotency_key(self, digest: str) -> str:
        """Return the key under which 0.2.0 stored an Idempotency-Key, by digest."""
        return self._key(f"key:{digest}")


def check_prefix(prefix: str) -> str:
    """Return the prefix if keys may begin with it.

    Raises:
        ConfigError: they may not.
    """
    if not _PREFIX_PATTERN.fullmatch(prefix):
        raise ConfigError(
            "BUSYAPI_KEY_PREFIX must be 1 to 128 letters, digits, dots, colons, dashes or"
            " underscores, and begin with a letter or digit"
        )
    return prefix
