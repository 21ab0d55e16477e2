"""partition.json: the partition and archive of a folder, and two numbers that only grow."""

import json
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, BinaryIO, NamedTuple

from busyapi.archive import disk_reserve, high_water, paths
from busyapi.archive.checksum import MEMBER, add_checksum, has_valid_checksum
from busyapi.archive.file_birth import matches_birth, read_birth
from busyapi.archive.format_version import NEWEST_FORMAT, require_known_format
from busyapi.archive.fsync import translate_full_volume, write_small_file
from busyapi.errors import ArchiveDamaged, ArchiveFull, PartitionMismatch
from busyapi.ids import Seq, UsageId
from busyapi.strides import IdScheme, Strides

KNOWN_FORMATS = range(1, NEWEST_FORMAT + 1)
NEEDED_FORMAT = 2
"""The least format of a partition.json with strides or a server: 0.2.0, which ignores both, would
compute wrong ids, or take a server without the partition for one that has lost its data."""
LEGACY_PREFIX = "busyapi"
"""The key prefix of 0.2.0, which does not record it and drops one that is recorded."""


class Identity(NamedTuple):
    """The identity of a folder. The first two members never change."""

    archive_id: str
    partition: int
    strides: Strides
    """Only grow. Before the first seeding they are a guess."""
    bound: int
    """The largest bound ever used: no id beyond cursor + bound was ever issued."""
    kept_from: Seq
    """The floor of retention, which deleted the usages below this seq."""
    is_seeded: bool = False
    """Ids may have been issued for this archive: an empty Redis has lost data."""
    replaces: str = ""
    """The archive that an operator replaced with this one."""
    file_birth: str = ""
    """The birth of this partition.json; empty if 0.2.0 wrote it."""
    is_copy: bool = False
    """The file is a copy: usages that the original archived later are not in this archive."""
    prefix: str = ""
    """The prefix of the Redis keys under which it was seeded; empty before that."""
    format: int = NEWEST_FORMAT
    """The format of new segments. No segment is of a later one: 0.2.0, which reads format 1 only,
    refuses the whole archive instead of taking its segments for damaged ones."""
    server: int = 0
    """The Redis server on which it was seeded: the lowest partition that this server has."""

    @property
    def ids(self) -> IdScheme:
        """How its seqs become ids."""
        return IdScheme(self.partition, self.strides)

    @property
    def is_new(self) -> bool:
        """Return whether the partition was never seeded from this archive."""
        return not (self.is_seeded or self.prefix)

    @property
    def is_known_to_0_2(self) -> bool:
        """Return whether 0.2.0 would use the right ids and the right server."""
        return self.strides.is_fixed and not self.server

    def id_of(self, seq: int) -> UsageId:
        """Return the id of a seq."""
        return self.ids.id_of(seq)

    def find_seq(self, usage_id: int) -> Seq | None:
        """Return the seq of an id, None if the id is not of this partition."""
        return self.ids.find_seq(usage_id)

    def owner_at(self, seq: int) -> tuple[int, int]:
        """Return what segments say of their owner: the partition, and the stride of a seq."""
        return self.ids.owner_at(seq)


def claim_identity(
    folder: Path, partition: int, partitions: int, bound: int, newest: int = NEWEST_FORMAT
) -> Identity:
    """Read the identity, or create one in a folder without files; raise bound and format.

    Both are on disk when this returns, before any id is issued under the bound, and before any
    segment of the format exists.

    Raises:
        PartitionMismatch: as `require_partition`, or the partition does not exist.
        ArchiveDamaged: the identity is missing or cannot be read.
    """
    current = read_identity(folder)
    if current is None:
        if paths.list_files(folder, partition).files or high_water.has_mark(folder):
            raise ArchiveDamaged(
                f"{folder / paths.IDENTITY_NAME} is missing, but the folder has, or had, segments"
            )
        if partition >= partitions:
            raise PartitionMismatch(
                f"BUSYAPI_PARTITIONS is {partitions}, and partition {partition} has no archive in"
                f" {folder}: mount its volume, or do not start its flusher"
            )
        current = write_identity(
            folder,
            Identity(
                token_hex(16),
                partition,
                Strides.fixed(partitions),
                bound,
                Seq(1),
                format=newest,
            ),
        )
    require_partition(current, folder, partition, partitions)
    if bound > current.bound:
        current = write_identity(folder, current._replace(bound=bound))
    if newest > current.format:
        # On a full volume the writer stays with the old format: deleting must not need space.
        with suppress(ArchiveFull):
            current = write_identity(folder, current._replace(format=newest))
    if not current.file_birth:
        # 0.2.0 wrote the file. On a full volume it stays as it is, and a copy is not recognized.
        with suppress(ArchiveFull):
            current = write_identity(folder, current)
    return current


def require_partition(current: Identity, folder: Path, partition: int, partitions: int) -> None:
    """Check that a folder holds this partition, and may belong to this number of partitions.

    Raises:
        PartitionMismatch: it does not.
    """
    if current.partition != partition:
        raise PartitionMismatch(
            f"{folder} is partition {current.partition} of {current.strides.stride}, not"
            f" {partition}"
        )
    # A folder that was never seeded has a guess: the setting of its first start.
    if not current.is_new and partitions < current.strides.base:
        raise PartitionMismatch(
            f"{folder} belongs to an installation of {current.strides.base} partitions,"
            f" BUSYAPI_PARTITIONS says {partitions}: it cannot be less than at install"
        )


def read_identity(folder: Path) -> Identity | None:
    """Read a folder's identity; return None if it has no identity.

    Raises:
        ArchiveDamaged: it cannot be read.
        UnknownVersion: a later version wrote it.
    """
    path = folder / paths.IDENTITY_NAME
    try:
        with path.open("rb") as file:
            members = _parse_file(file)
            home = str(members.get("home", ""))
            is_copy = bool(home) and not matches_birth(home, file.fileno())
        require_known_format(members, str(path))
        if not has_valid_checksum(members):
            raise ArchiveDamaged(
                f"{path}: its checksum does not match. If you edited the file, remove {MEMBER}"
            )
        number = members["format"]
        if type(number) is not int or number not in KNOWN_FORMATS:
            raise ArchiveDamaged(f"{path} is of format {number}, which never existed")
        numbers = [members[name] for name in ("partition", "partitions", "bound", "keptFrom")]
        numbers.append(members.get("server", 0))
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ArchiveDamaged(f"{path} cannot be read: its numbers must be integers from 0")
        partition, partitions, bound, kept_from, server = numbers
        strides = members.get("strides") if number >= NEEDED_FORMAT else None
        return Identity(
            str(members["archive"]),
            partition,
            Strides.parse(strides) if strides else Strides.fixed(partitions),
            bound,
            Seq(kept_from),
            bool(members["seeded"]),
            str(members["replaces"]),
            home,
            is_copy,
            str(members.get("prefix", LEGACY_PREFIX if members["seeded"] else "")),
            number,
            server,
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArchiveDamaged(f"{path} cannot be read: {type(error).__name__}") from error


def _parse_file(file: BinaryIO) -> Any:
    """Parse the file; if that fails, parse it again: a writer may have changed it in place."""
    with suppress(ValueError):
        if has_valid_checksum(content := json.loads(file.read())):
            return content
    file.seek(0)
    return json.loads(file.read())


def write_identity(folder: Path, identity: Identity) -> Identity:
    """Replace the identity on disk; return it with the birth of the new file.

    Strides that have changed, and a server, raise its format. A copy stays recognizable: while
    `is_copy` is true, it keeps the birth of the original.

    On a full volume this releases the reserve, or changes the members that the file has in place:
    deleting expired files must not need space.

    Raises:
        ArchiveFull: the previous identity is still on disk.
        FsyncFailed: what the disk holds is unknown.
    """
    if not identity.is_known_to_0_2:
        identity = identity._replace(format=max(identity.format, NEEDED_FORMAT))
    path = folder / paths.IDENTITY_NAME
    home = identity.file_birth

    def render(fd: int) -> bytes:
        nonlocal home
        home = home if identity.is_copy else read_birth(fd)
        members = add_checksum(_make_members(identity._replace(file_birth=home)))
        return json.dumps(members, indent=2).encode() + b"\n"

    def write_new() -> None:
        with translate_full_volume(folder):
            write_small_file(path, render)

    try:
        disk_reserve.retry_with_reserve(folder, write_new)
    except ArchiveFull:
        current = read_identity(folder)
        # An overwritten file keeps its birth, so it stays a copy or an original. A file of 0.2.0
        # has no member for the prefix.
        changed = (identity.is_copy, identity.prefix, identity.strides)
        if current is None or (current.is_copy, current.prefix, current.strides) != changed:
            raise
        home = current.file_birth
        disk_reserve.overwrite_members(path, _make_members(identity._replace(file_birth=home)))
    return identity._replace(file_birth=home)


def _make_members(identity: Identity) -> dict[str, Any]:
    strides = identity.strides
    more = {} if strides.is_fixed else {"strides": strides.encode()}
    return {
        "format": identity.format,
        "archive": identity.archive_id,
        "partition": identity.partition,
        "partitions": strides.base,
        **more,
        "bound": identity.bound,
        "keptFrom": identity.kept_from,
        "seeded": identity.is_seeded,
        "replaces": identity.replaces,
        "home": identity.file_birth,
        "prefix": identity.prefix,
        **({"server": identity.server} if identity.server else {}),
    }
