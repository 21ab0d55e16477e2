"""The idempotency log in each state of the disk."""

from pathlib import Path

from busyapi.archive.idempotency_log import IdempotencyLog, list_parts, read_part
from busyapi.idempotency import IdempotencyRecord
from busyapi.ids import Seq


def make_record(last: int) -> IdempotencyRecord:
    return IdempotencyRecord(Seq(last), 1, 1_700_000_000_000, f"{last:032x}", f"{last + 1:032x}")


def open_log(folder: Path, highest: int = 1 << 50) -> IdempotencyLog:
    return IdempotencyLog.recover(folder, 0, Seq(highest), [])


def read_last_seqs(folder: Path) -> list[int | None]:
    return [
        record and record.last_seq for part in list_parts(folder, 0) for record in read_part(part)
    ]


def test_keys_are_read_as_they_were_written(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    log.generation = 1
    log.append([make_record(1), make_record(2)])
    log.append([make_record(3)])
    log.close()
    (part,) = list_parts(tmp_path, 0)
    assert part.path.name == "keys-p00-00000001-001.log"
    assert list(read_part(part)) == [make_record(1), make_record(2), make_record(3)]


def test_each_process_writes_its_own_part(tmp_path: Path) -> None:
    for seq in (1, 2, 3):
        log = open_log(tmp_path)
        log.append([make_record(seq)])
        log.close()
    assert [part.number for part in list_parts(tmp_path, 0)] == [1, 2, 3]
    assert read_last_seqs(tmp_path) == [1, 2, 3]


def test_two_processes_at_once_write_two_parts(tmp_path: Path) -> None:
    one, two = open_log(tmp_path), open_log(tmp_path)
    one.append([make_record(1)])
    two.append([make_record(1)])
    one.append([make_record(2)])
    assert read_last_seqs(tmp_path) == [1, 2, 1]


def test_torn_end_is_skipped_and_damage_is_reported(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    log.append([make_record(seq) for seq in range(1, 6)])
    log.close()
    (part,) = list_parts(tmp_path, 0)
    whole = part.path.read_bytes()
    length = len(whole) // 5
    for cut in range(len(whole)):
        part.path.write_bytes(whole[:cut])
        assert read_last_seqs(tmp_path) == list(range(1, 1 + cut // length))
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 1
        part.path.write_bytes(changed)
        seqs = read_last_seqs(tmp_path)
        # A changed newline joins two lines.
        assert None in seqs or at == len(whole) - 1
        assert len([seq for seq in seqs if seq]) >= 3
        assert set(seqs) - {None} <= set(range(1, 6))


def test_part_above_the_highest_seq_is_deleted_unless_it_is_the_newest(tmp_path: Path) -> None:
    for seq in (1, 5, 6, 7):
        log = open_log(tmp_path)
        log.append([make_record(seq)])
        log.close()
    assert [part.number for part in open_log(tmp_path, highest=4).parts] == [1, 4]
    assert read_last_seqs(tmp_path) == [1, 7]


def test_generations_begin_on_disk_and_end_together(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    assert log.is_empty
    for generation in (1, 2, 3):
        log.begin_generation(generation)
        log.append([make_record(generation)])
    assert open_log(tmp_path).generation == 3
    log.drop_generations(3)
    assert read_last_seqs(tmp_path) == [3]
    log.begin_generation(4)
    log.drop_generations(4)
    assert log.is_empty
    assert open_log(tmp_path).generation == 4


def test_other_files_are_skipped(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    log.append([make_record(1)])
    log.close()
    for name in ("keys-p01-00000009-001.log", "keys-p00-00000009-001.log.tmp", "notes"):
        (tmp_path / "keys" / name).write_text("x")
    assert [part.generation for part in list_parts(tmp_path, 0)] == [0]
