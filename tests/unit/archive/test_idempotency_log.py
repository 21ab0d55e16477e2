"""The files of Idempotency-Keys, by the state of the disk."""

from pathlib import Path

from busyapi.archive.idempotency_log import IdempotencyLog, list_parts, read_part
from busyapi.idempotency import IdempotencyRecord
from busyapi.ids import Seq


def known(last: int) -> IdempotencyRecord:
    return IdempotencyRecord(Seq(last), 1, 1_700_000_000_000, f"{last:032x}", f"{last + 1:032x}")


def opened(folder: Path, highest: int = 1 << 50) -> IdempotencyLog:
    return IdempotencyLog.recover(folder, 0, Seq(highest), [])


def lasts(folder: Path) -> list[int | None]:
    return [each and each.last_seq for part in list_parts(folder, 0) for each in read_part(part)]


def test_keys_are_read_as_they_were_written(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.generation = 1
    log.append([known(1), known(2)])
    log.append([known(3)])
    log.close()
    (part,) = list_parts(tmp_path, 0)
    assert part.path.name == "keys-p00-00000001-001.log"
    assert list(read_part(part)) == [known(1), known(2), known(3)]


def test_each_process_writes_a_part_of_its_own(tmp_path: Path) -> None:
    for each in (1, 2, 3):
        log = opened(tmp_path)
        log.append([known(each)])
        log.close()
    assert [each.number for each in list_parts(tmp_path, 0)] == [1, 2, 3]
    assert lasts(tmp_path) == [1, 2, 3]


def test_two_processes_at_once_write_two_parts(tmp_path: Path) -> None:
    one, two = opened(tmp_path), opened(tmp_path)
    one.append([known(1)])
    two.append([known(1)])
    one.append([known(2)])
    assert lasts(tmp_path) == [1, 2, 1]


def test_torn_end_is_passed_over_and_damage_is_told(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.append([known(each) for each in range(1, 6)])
    log.close()
    (part,) = list_parts(tmp_path, 0)
    whole = part.path.read_bytes()
    length = len(whole) // 5
    for cut in range(len(whole)):
        part.path.write_bytes(whole[:cut])
        assert lasts(tmp_path) == list(range(1, 1 + cut // length))
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 1
        part.path.write_bytes(changed)
        found = lasts(tmp_path)
        # A newline that is none any more joins two lines.
        assert None in found or at == len(whole) - 1
        assert len([each for each in found if each]) >= 3
        assert set(found) - {None} <= set(range(1, 6))


def test_part_of_which_nothing_counts_is_deleted_unless_it_is_the_newest(tmp_path: Path) -> None:
    for each in (1, 5, 6, 7):
        log = opened(tmp_path)
        log.append([known(each)])
        log.close()
    assert [each.number for each in opened(tmp_path, highest=4).parts] == [1, 4]
    assert lasts(tmp_path) == [1, 7]


def test_generations_begin_on_disk_and_end_together(tmp_path: Path) -> None:
    log = opened(tmp_path)
    assert log.is_empty
    for each in (1, 2, 3):
        log.begin_generation(each)
        log.append([known(each)])
    assert opened(tmp_path).generation == 3
    log.drop_generations(3)
    assert lasts(tmp_path) == [3]
    log.begin_generation(4)
    log.drop_generations(4)
    assert log.is_empty
    assert opened(tmp_path).generation == 4


def test_files_of_others_are_passed_over(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.append([known(1)])
    log.close()
    for name in ("keys-p01-00000009-001.log", "keys-p00-00000009-001.log.tmp", "notes"):
        (tmp_path / "keys" / name).write_text("x")
    assert [each.generation for each in list_parts(tmp_path, 0)] == [0]
