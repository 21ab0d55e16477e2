"""When ids jump: the rows of the table at the top of seed.py."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from busyapi.archive.config import ArchiveConfig
from busyapi.archive.writer import PartitionWriter
from busyapi.errors import LossSuspected, PartitionMismatch
from busyapi.flusher.ownership import PartitionConfig, check_archive_complete, check_config
from busyapi.flusher.record import doubt_reason
from busyapi.flusher.seed import _jump_reason
from busyapi.ids import Seq
from busyapi.stream.durability import ServerInfo
from busyapi.stream.redis_url import parse_redis_url
from busyapi.stream.snapshot import PartitionSnapshot
from busyapi.stream.state import PartitionState
from busyapi.strides import Strides

SERVER = ServerInfo("this", "master", 0, was_promoted=False, memory_bytes=0, memory_max_bytes=0)
STATE = PartitionState(
    epoch="e",
    server_id="this",
    strides=Strides.fixed(1),
    bound=100,
    archived=Seq(10),
    skipped=10,
    doubt="",
    seq=Seq(15),
)
ENDPOINT = parse_redis_url("redis://one")
CONFIG = PartitionConfig(partition=0, partitions=1, bound=100, tier="fsync")


def make_config(root: Path) -> ArchiveConfig:
    return ArchiveConfig(
        root, 0, 1, bound=100, segment_bytes=1 << 20, segment_age=3600, retention_days=0
    )


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[PartitionWriter]:
    """Make an archive that ends at seq 10."""
    writer = PartitionWriter.recover(make_config(tmp_path))
    writer.record_gap(Seq(10), "a test says so")
    yield writer
    writer.close()


def find_reason(writer: PartitionWriter, *, standalone: bool = True, **changes: Any) -> str:
    server = SERVER._replace(
        **{k: v for k, v in changes.items() if k in ServerInfo._fields and k != "server_id"}
    )
    state = STATE._replace(**{k: v for k, v in changes.items() if k in PartitionState._fields})
    return _jump_reason(PartitionSnapshot(server, state, is_empty=False), writer, standalone)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"standalone": False},
        {"server_id": "an earlier life"},
        {"seq": Seq(10)},
        {"server_id": "this-other history"},
        # Doubt and replicas matter only after a change of the server or its history.
        {"doubt": "it has had replicas", "was_promoted": True},
    ],
)
def test_ids_continue(writer: PartitionWriter, changes: dict[str, Any]) -> None:
    assert find_reason(writer, **changes) == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"seq": None}, "lost its data"),
        ({"epoch": ""}, "went back"),
        ({"epoch": "", "server_id": "an earlier life"}, "went back"),
        ({"seq": Seq(9)}, "older than the archive"),
        ({"seq": Seq(9), "server_id": "an earlier life"}, "older than the archive"),
        ({"server_id": "another", "standalone": False}, "failover"),
        ({"server_id": "another", "was_promoted": True}, "promoted replica"),
        ({"server_id": "an earlier life", "doubt": "tier memory"}, "doubt: tier memory"),
        ({"server_id": "this-other history", "doubt": "it has had replicas"}, "had replicas"),
    ],
)
def test_ids_jump(writer: PartitionWriter, changes: dict[str, Any], reason: str) -> None:
    assert reason in find_reason(writer, **changes)


def test_archive_behind_redis_names_both_seqs_and_the_command(writer: PartitionWriter) -> None:
    check_archive_complete(STATE, writer, CONFIG)
    with pytest.raises(LossSuspected) as caught:
        check_archive_complete(STATE._replace(archived=Seq(11)), writer, CONFIG)
    message = str(caught.value)
    assert "up to seq 11" in message
    assert "ends at seq 10" in message
    assert "busyapi archive accept-loss --partition 0 --through 11 --reason" in message


def test_other_number_of_partitions_is_named_with_the_own(writer: PartitionWriter) -> None:
    with pytest.raises(PartitionMismatch, match=r"with 4 partitions, BUSYAPI_PARTITIONS says 1"):
        check_config(STATE._replace(strides=Strides.fixed(4)), writer.identity, CONFIG, ENDPOINT)
    check_config(STATE._replace(strides=None), writer.identity, CONFIG, ENDPOINT)


def test_restart_is_doubtful_without_fsync_or_with_replicas() -> None:
    assert doubt_reason(SERVER, "fsync") == ""
    assert doubt_reason(SERVER, "memory")
    assert doubt_reason(SERVER._replace(replicas=1), "replicated")
    assert doubt_reason(SERVER._replace(trust="appendfsync"), "fsync")


def test_missing_seqs_that_whole_files_follow_are_named(tmp_path: Path) -> None:
    for last in (10, 20, 30, 40):
        writer = PartitionWriter.recover(make_config(tmp_path))
        writer.record_gap(Seq(last), "a test says so")
        writer.close()
    for first in (11, 31):
        (file,) = tmp_path.rglob(f"gap-p00-{first:016d}-*")
        file.unlink()
    writer = PartitionWriter.recover(make_config(tmp_path))
    with pytest.raises(LossSuspected) as caught:
        check_archive_complete(STATE._replace(archived=Seq(45)), writer, CONFIG)
    writer.close()
    message = str(caught.value)
    assert "ends at seq 10: seqs 11 to 20 are missing, and 15 more;" in message, "21 to 30 exist"
    assert "the next intact file begins at seq 21:" in message
