"""The filter of a segment's patients: a search reads fewer segments, and finds the same."""

import hashlib
import json
import struct
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busyapi import cli
from busyapi.archive import patient_filter
from busyapi.archive.index_file import read_index, read_patients
from busyapi.archive.paths import index_path, list_files
from busyapi.archive.patient_filter import PatientCollector
from busyapi.archive_cli.line_filter import Query
from testkit.archive.builder import (
    RECEIVED_MS,
    find_segments,
    join_usages,
    recover_writer,
    render_batches,
)

SEGMENTS = 5
IDS = st.one_of(
    st.text(max_size=6),
    st.integers(-3, 30),
    st.integers(10**20, 10**24),
    st.sampled_from(["0", "-0", "é", "\u2028", "\\", '"', "a\\u0031", "7", "\x7f"]),
)
FREE = st.dictionaries(
    st.sampled_from(["patientId", "a", 'x":"patientId":"9']),
    st.one_of(IDS, st.floats(allow_nan=False, allow_infinity=False), st.none()),
)


def render(patient: object, free: object = None) -> bytes:
    """Return a usage as the API stores it."""
    members = {"free": free, "patientId": patient, "timestamp": 1, "medication": "x"}
    return json.dumps(members, separators=(",", ":"), ensure_ascii=False).encode()


def make_lines(usages: list[bytes]) -> bytes:
    return render_batches([join_usages(1, usages)], 0, 1)


@given(usages=st.lists(st.tuples(IDS, FREE), min_size=1, max_size=20))
def test_no_patient_that_a_search_would_find_is_missing(
    usages: list[tuple[str | int, dict[str, object]]],
) -> None:
    lines = make_lines([render(patient, free) for patient, free in usages])
    collector = PatientCollector(len(usages))
    collector.add(lines)
    patients = collector.build()
    for patient, _ in usages:
        assert Query(patients=frozenset([str(patient)])).select_content(lines)
        assert patients.may_hold(str(patient))


def test_a_number_of_any_form_is_no_error() -> None:
    digits = b"9" * 5000
    lines = make_lines(
        [b'{"a":{"patientId":%b},"patientId":-0,"b":[{"patientId":1.5e3}]}' % digits]
    )
    collector = PatientCollector(1)
    collector.add(lines)
    assert collector.build().may_hold("0")


def test_a_patient_under_an_escaped_name_or_after_a_space_is_not_missing() -> None:
    r"""No writer renders such lines, but a search finds them: it parses lines with a backslash."""
    lines = make_lines([b'{"patientI\\u0064":7}', b'{"a":"\\n","patientId": 8}'])
    collector = PatientCollector(2)
    collector.add(lines)
    patients = collector.build()
    for patient in "78":
        assert Query(patients=frozenset([patient])).select_content(lines)
        assert patients.may_hold(patient)


def test_bytes_that_are_no_text_are_no_error() -> None:
    """A filter of their segment can be made: only a search for such a patient fails."""
    collector = PatientCollector(2)
    collector.add(make_lines([b'{"patientId":"\xff"}', b'{"patientId":"\xc3\xa9"}']))
    assert collector.build().may_hold("\u00e9")


def test_long_names_of_patients_take_no_memory() -> None:
    collector = PatientCollector(500)
    tracemalloc.start()
    try:
        for number in range(500):
            collector.add(b'{"patientId":"%b%d"}' % (b"x" * 20_000, number))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1 << 20


@pytest.mark.parametrize("usages_each", [1, 30])
@pytest.mark.parametrize("seen", [0, 1 << 17])
def test_few_other_patients_seem_to_be_in_a_segment(
    monkeypatch: pytest.MonkeyPatch, usages_each: int, seen: int
) -> None:
    """A filter is small for its patients, and right, also if their usages are many."""
    monkeypatch.setattr(patient_filter, "_MAX_SEEN", seen)
    collector = PatientCollector(2000 * usages_each)
    lines = make_lines([render(number) for number in range(2000)])
    for _ in range(usages_each):
        collector.add(lines)
    patients = collector.build()
    assert 3000 <= len(patients.bits) < 6000
    assert all(patients.may_hold(str(number)) for number in range(2000))
    wrong = sum(patients.may_hold(str(number)) for number in range(2000, 12_000))
    assert 0 < wrong < 150


@pytest.fixture
def root(fast_path: Path) -> Path:
    """Make segments, each with patients of its own and one that is in all, without filters."""
    writer = recover_writer(fast_path, segment_bytes=1)
    for number in range(SEGMENTS):
        usages = [render(patient) for patient in (f"a{number}", number, "all", f'"{number}')]
        for pair in (usages[:2], usages[2:]):
            writer.append([join_usages(writer.cursor + 1, pair)])
        writer.roll_if_due()
    writer.close()
    return fast_path


def run_archive(root: Path, *words: str) -> int:
    return cli.main(["archive", words[0], "--dir", str(root), *words[1:]])


def search(root: Path, capsys: pytest.CaptureFixture[str]) -> list[list[int]]:
    """Return the ids that a search for each patient prints, without a problem."""
    results = []
    for patient in ("a1", "3", "all", '"4', "nobody"):
        capsys.readouterr()
        assert run_archive(root, "cat", "--patient", patient) == 0
        printed = capsys.readouterr()
        assert "cannot be read" not in printed.err
        results.append([json.loads(line)["id"] for line in printed.out.splitlines()])
    return results


FOUND = [[5], [14], [3, 7, 11, 15, 19], [20], []]


def test_a_search_finds_the_same_with_filters_and_without(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search(root, capsys) == FOUND
    assert run_archive(root, "upgrade") == 0
    assert f"{SEGMENTS} indexes completed" in capsys.readouterr().out
    assert search(root, capsys) == FOUND
    assert run_archive(root, "verify") == 0
    indexes = sorted(root.rglob("_usages-*.index"))
    before = [path.read_bytes() for path in indexes]
    assert run_archive(root, "upgrade") == 0
    assert [path.read_bytes() for path in indexes] == before


def test_no_block_of_a_segment_without_the_patient_is_read(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_archive(root, "upgrade") == 0
    for path in find_segments(root)[1:]:
        content = bytearray(path.read_bytes())
        for at in (20, -10):
            content[at] ^= 1
        path.write_bytes(content)
    assert run_archive(root, "cat", "--patient", "a0") == 0
    assert run_archive(root, "cat", "--patient", "a1") == 1
    assert "cannot be read" in capsys.readouterr().err


def test_nothing_found_counts_the_usages_that_were_not_read(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_archive(root, "upgrade") == 0
    assert run_archive(root, "cat", "--patient", "nobody") == 0
    assert f"none of the {4 * SEGMENTS} usages here has that" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["changed", "torn", "of another segment", "missing"])
def test_a_filter_that_is_not_of_its_segment_does_not_count(
    root: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    assert run_archive(root, "upgrade") == 0
    indexes = sorted(root.rglob("_usages-*.index"))
    contents = [path.read_bytes() for path in indexes]
    size = 100 + 2 * 40 + 4
    for path, content, other in zip(indexes, contents, contents[1:] + contents[:1], strict=True):
        match damage:
            case "changed":
                path.write_bytes(content[:-6] + bytes([content[-6] ^ 255]) + content[-5:])
            case "torn":
                path.write_bytes(content[:-1])
            case "of another segment":
                path.write_bytes(content[:size] + other[size:])
            case _:
                path.write_bytes(content[:size])
    assert search(root, capsys) == FOUND
    assert run_archive(root, "upgrade") == 0
    assert [path.read_bytes() for path in indexes] == contents


@pytest.mark.parametrize(
    ("query", "days"),
    [(("--patient", "4"), 0), (("--patient", "4"), 365), (("--to", "2026-01-01"), 365)],
)
def test_an_index_of_the_same_name_and_size_from_another_archive_hides_nothing(
    fast_path: Path, capsys: pytest.CaptureFixture[str], query: tuple[str, str], days: int
) -> None:
    """It is what a copy leaves that does not overwrite everything."""
    for name, patient, ms in (("a", 4, RECEIVED_MS), ("b", 6, RECEIVED_MS + days * 86_400_000)):
        writer = recover_writer(fast_path / name)
        writer.append([join_usages(1, [render(patient)], ms)])
        writer.close()
        assert run_archive(fast_path / name, "upgrade") == 0
    (one, other) = sorted(fast_path.rglob("_usages-*.index"))
    assert len({path.stat().st_size for path in find_segments(fast_path)}) == 1
    one.write_bytes(other.read_bytes())
    capsys.readouterr()
    assert run_archive(fast_path / "a", "cat", *query) == 0
    assert json.loads(capsys.readouterr().out)["id"] == 1
    assert run_archive(fast_path / "a", "upgrade") == 0
    assert run_archive(fast_path / "a", "verify") == 0


def test_the_filter_of_a_segment_that_was_replaced_does_not_count(root: Path) -> None:
    """A reader has read the summary of one segment, and another one takes its name."""
    assert run_archive(root, "upgrade") == 0
    folder = root / "p00"
    one, other = list_files(folder, 0).files[:2]
    summary = read_index(folder, one)
    assert summary
    assert read_patients(folder, one, summary.sha256)
    (folder / index_path(other)).rename(folder / index_path(one))
    assert read_patients(folder, one, summary.sha256) is None


def test_a_second_reader_finds_the_filter_as_documented(root: Path) -> None:
    assert run_archive(root, "upgrade") == 0
    index = min(root.rglob("_usages-*.index")).read_bytes()
    (blocks,) = struct.unpack_from("<I", index, 56)
    at = 100 + 40 * blocks
    assert zlib.crc32(index[:at]) == struct.unpack_from("<I", index, at)[0]
    kind, length = struct.unpack_from("<II", index, at + 4)
    bits = index[at + 12 : at + 12 + length]
    assert (kind, len(index)) == (1, at + 12 + length + 4)
    section = index[at + 4 : -4]
    assert zlib.crc32(index[60:92] + section) == struct.unpack("<I", index[-4:])[0]
    for patient in ("a0", "0", "all", '"0'):
        words = struct.unpack("<4Q", hashlib.sha256(patient.encode()).digest())
        for word in words:
            bit = word % (8 * length)
            assert bits[bit // 8] >> bit % 8 & 1


@pytest.mark.parametrize("change", ["flip", "cut", "add"])
def test_verify_names_an_index_whose_filter_is_damaged(
    root: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    assert run_archive(root, "upgrade") == 0
    assert run_archive(root, "verify") == 0
    index = sorted(root.rglob("_usages-*.index"))[1]
    data = bytearray(index.read_bytes())
    if change == "flip":
        data[-6] ^= 1
    elif change == "cut":
        del data[-2:]
    else:
        data += b"\0"
    index.write_bytes(data)
    capsys.readouterr()
    assert run_archive(root, "verify") == 1
    printed = capsys.readouterr().out
    assert index.name.removeprefix("_").removesuffix(".index") in printed
    assert "damaged section" in printed
    assert run_archive(root, "upgrade") == 0
    assert run_archive(root, "verify") == 0
