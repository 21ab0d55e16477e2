"""The check of a whole block at once has the same verdict as the check of each line."""

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from busyapi.archive.compression import compress
from busyapi.archive.format import UsageBatch
from busyapi.archive.frames import summarize_lines, summarize_times
from busyapi.archive_cli import segment_check
from busyapi.archive_cli.line_check import check_lines
from busyapi.archive_cli.verify import PartitionReport, verify_archive
from busyapi.ids import Seq
from busyapi.stamp import Stamp, encode_stamp
from busyapi.strides import IdScheme
from testkit.archive.builder import RECEIVED_MS, render_batches, write_blocks

ROUNDS, COUNT = 150, 24
OWNER = (1, 2)
IDS = IdScheme.fixed(*OWNER)
USAGES = [
    b'{"patientId":"7","timestamp":1,"medication":"Albuterol"}',
    b'{"medication":"\xc3\xa9 \\" }}","a":[{},[1.5e3,{"b":null}]],"c":"2 {"}',
]
STAMPS = [
    encode_stamp(Stamp("8nC3hQ2vXr0aLw_K")),
    encode_stamp(Stamp("8nC3hQ2vXr0aLw_K", 'a "clinic"}\\')),
]


def make_lines(first: int, stamps: list[bytes], count: int = COUNT) -> list[bytes]:
    """Return lines of three seconds, in each of which time goes back, each with its newline."""
    batches = [
        UsageBatch(
            Seq(seq),
            Seq(seq),
            RECEIVED_MS + seq % 1000 // 12 * 1000 + -seq // 3 % 7 * 120,
            USAGES[seq % 2] + stamps[seq % len(stamps)],
        )
        for seq in range(first, first + count)
    ]
    return render_batches(batches, *OWNER).splitlines(keepends=True)


BEFORE = make_lines(1, [b""], 4)
KINDS = {"unstamped": [b""], "stamped": STAMPS, "mixed": [b"", b"", *STAMPS]}


@pytest.mark.parametrize("stamps", KINDS.values(), ids=list(KINDS))
@pytest.mark.parametrize("first", [1000, 5_000_000_000_000_000 // 2])
def test_valid_lines_are_accepted_at_once(first: int, stamps: list[bytes]) -> None:
    content = b"".join(make_lines(first, stamps))
    checked = check_lines(content, IDS)
    assert checked is not None
    assert summarize_times(*checked) == summarize_lines(content, IDS)


def test_ids_that_get_a_digit_more_are_checked_line_by_line() -> None:
    assert check_lines(b"".join(make_lines(490, [b""])), IDS) is None


@pytest.mark.parametrize("digits", range(3, 17))
def test_each_digit_of_an_id_is_checked(digits: int) -> None:
    """Ids are compared by four digits, and the first of them may be fewer."""
    lines = make_lines(10**digits // 4, [b""])
    assert check_lines(b"".join(lines), IDS) is not None
    for at in range(len('{"id":'), len('{"id":') + digits):
        changed = bytearray(lines[3])
        changed[at] ^= 1
        assert check_lines(b"".join([*lines[:3], changed, *lines[4:]]), IDS) is None


def test_an_empty_usage_is_checked_line_by_line() -> None:
    *lines, last = make_lines(5, [b""])
    content = b"".join(lines) + last.partition(b'"usage":')[0] + b'"usage":{}}\n'
    assert summarize_lines(content, IDS) is not None
    assert check_lines(content, IDS) is None


INSERTED = [*(bytes([code]) for code in b'{}[]",:\n 0a\\\x00\x80'), b"{}", b"\xc3\xa9", b"}\n{"]
TIMES = [b"2025-13-23T19:12:00.", b"2025-11-23T19:12:00,", b"2025-11-23T19:12:0a."]

Mutation = Callable[[random.Random, list[bytes]], None]


def change_bytes(chance: random.Random, lines: list[bytes]) -> None:
    row = chance.randrange(len(lines))
    at = chance.randrange(len(lines[row]))
    end = at + chance.randrange(3)
    lines[row] = lines[row][:at] + chance.choice([b"", *INSERTED]) + lines[row][end:]


def change_column(chance: random.Random, lines: list[bytes]) -> None:
    """Change the same byte of all lines, as a writer with a defect would."""
    at, byte = chance.randrange(70), chance.choice(INSERTED[:14])
    lines[:] = [line[:at] + byte + line[at + 1 :] for line in lines]


def flip_bit(chance: random.Random, lines: list[bytes]) -> None:
    line = bytearray(chance.choice(lines))
    row = lines.index(bytes(line))
    line[chance.randrange(len(line))] ^= 1 << chance.randrange(8)
    lines[row] = bytes(line)


def swap_lines(chance: random.Random, lines: list[bytes]) -> None:
    one, other = chance.sample(range(len(lines)), 2)
    lines[one], lines[other] = lines[other], lines[one]


def repeat_line(chance: random.Random, lines: list[bytes]) -> None:
    lines[chance.randrange(len(lines))] = chance.choice(lines)


def join_lines(chance: random.Random, lines: list[bytes]) -> None:
    """Put two objects in a line, and leave another line empty."""
    row = chance.randrange(1, len(lines) - 1)
    lines[row - 1] = lines[row - 1][:-1] + chance.choice([b"", b" ", b","]) + lines[row]
    lines[row] = b"\n"


def replace(chance: random.Random, lines: list[bytes]) -> None:
    old, new = chance.choice(
        [
            (b"2025-11-23T19:12:00.", chance.choice(TIMES)),
            (b'"receivedAt":"2025-11-23T19:12:00.', b'"received":"2025-11-23T19:12:00.'),
            (b'"usage":', b'"more":1,"usage":'),
            (b'"usage":', b'"usage": '),
            (b'"usage":{', b'"usage":{"id":1,'),
            (b'"usage":{', b'"usage":{"\xff":1,'),
            (b'"usage":{', b'"usage":[],"x":{'),
            (b"}\n", b',"x":1}\n'),
            (b"}}\n", b'},"x":{}}\n'),
            (b"}}\n", b"},{}}\n"),
            (b"}}\n", b'},"usage":{}}\n'),
            (b"}}\n", STAMPS[0].join([b"}", b"}\n"])),
            (b"}}\n", b'},"writer":null}\n'),
            (b"clinic", b"cl\nnic"),
            (STAMPS[0], STAMPS[0] * 2),
        ]
    )
    rows = range(len(lines)) if chance.random() < 0.5 else [chance.randrange(len(lines))]
    for row in rows:
        lines[row] = lines[row].replace(old, new)


MUTATIONS: list[Mutation] = [
    change_bytes,
    change_column,
    flip_bit,
    swap_lines,
    repeat_line,
    join_lines,
    replace,
]


def is_refused(path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Return whether `verify` refuses a block of an open segment; both checks must agree."""
    path.write_bytes(compress(b"".join(BEFORE)) + compress(content))
    reports: list[PartitionReport] = []
    for limit in (0, 1 << 60):
        monkeypatch.setattr(segment_check, "MIN_BYTES_AT_ONCE", limit)
        reports += verify_archive(path.parents[2], only=OWNER[0])
    assert reports[0] == reports[1], content
    # Of an open segment, a last block without lines of the partition is a note.
    return bool(reports[0].problems) or reports[0].usages < len(BEFORE) + COUNT


@pytest.fixture
def segment(tmp_path: Path) -> Path:
    """Write an open segment of partition 1 of 2."""
    return write_blocks(tmp_path, 1, partition=OWNER[0], partitions=OWNER[1])


@pytest.mark.parametrize("stamps", KINDS.values(), ids=list(KINDS))
def test_random_damage_has_the_same_verdict(
    segment: Path, monkeypatch: pytest.MonkeyPatch, stamps: list[bytes]
) -> None:
    chance = random.Random(19)
    refused = 0
    for _ in range(ROUNDS):
        lines = make_lines(5, stamps)
        for mutate in chance.sample(MUTATIONS, chance.choice([0, 1, 1, 2])):
            mutate(chance, lines)
        refused += is_refused(segment, b"".join(lines), monkeypatch)
    assert ROUNDS // 2 < refused < ROUNDS


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (b'"usage":{"a":1}}]', b'"usage":{"a":1}}'),
        (b'"usage":{"a":1}]', b'"usage":{"a":1}}'),
        (b'"usage":{"a":1}{"a":1}}', b'"usage":{"a":1}}'),
        (b'"usage":{"a":1} {}}', b'"usage":{"a":1}}'),
        (b'"usage":{"a":[{}}', b'"usage":{}]}}'),
        (b'"usage":{"a":[{}}', b'"usage":{}]} {"a":1}}'),
        (b'"usage":{"a":{}}', b'"usage":{"a":1}}}'),
        (b'"usage":{}}', b'"usage":{"":}}'),
    ],
)
def test_an_object_that_is_no_line_is_refused(
    segment: Path, monkeypatch: pytest.MonkeyPatch, first: bytes, second: bytes
) -> None:
    """Some of these blocks have as many objects as lines, if the line of an object is ignored."""
    lines = make_lines(5, [b""])
    for row, rest in enumerate((first, second)):
        lines[row] = lines[row].partition(b'"usage":')[0] + rest + b"\n"
    assert is_refused(segment, b"".join(lines), monkeypatch)


def test_an_id_of_other_characters_is_refused(
    segment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its value as a character, the colon is a digit of 10."""
    content = b"".join(make_lines(5, [b""])).replace(b'"id":20,', b'"id":1:,')
    assert is_refused(segment, content, monkeypatch)


def test_services_and_most_commands_load_no_numpy() -> None:
    """It takes 20 MB of memory, and a tenth of a second."""
    modules = "wiring.api, busyapi.wiring.flusher, busyapi.archive_cli.commands"
    code = f"import sys, busyapi.{modules}; sys.exit('numpy' in sys.modules)"
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
