"""Send bytes that are almost HTTP, and check the rules that every answer must follow.

A case is a function of its number. It is sent on its own connection, packet by packet. Then the
client half-closes the connection, so the server answers each complete request and closes without
waiting for a deadline.
"""

import asyncio
import gzip
import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from testkit.api_client import BODY, PROBLEM_MEMBERS, USAGE, render_request
from testkit.framing_cases import ACCEPTED, REFUSED_CHUNKS, REFUSED_HEADS
from testkit.log_leaks import MARK
from testkit.packets import BETWEEN_SECONDS, split_stream

TIMEOUT_SECONDS = 20.0
"""A connection that has not ended fails after this time."""
MAX_ERROR_BYTES = 70_000

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) [A-Za-z -]+")
_FIELD = re.compile(rb"([a-z0-9-]+): ([\x20-\x7e]*)")


@dataclass(frozen=True)
class Case:
    """The packets that one client sends."""

    number: int
    packets: tuple[bytes, ...]

    @property
    def max_usages(self) -> int:
        """The maximum of stored usages if the answers were lost."""
        raw = b"".join(self.packets)
        return raw.count(b"medic") + 2 * raw.count(b"\x1f\x8b")


@dataclass
class FuzzResult:
    """The results of many cases."""

    statuses: Counter[int] = field(default_factory=Counter)
    ids: list[int] = field(default_factory=list)
    """From each first 201."""
    max_unanswered: int = 0
    """The maximum of stored usages on connections that were reset, whose answers may be lost."""
    faults: list[str] = field(default_factory=list)


# --- cases --------------------------------------------------------------------------------------

PATHS = (
    *["/api/usages"] * 8,
    *["/api/usages/batch"] * 3,
    "/api/usages/",
    "/api/usages?q=1",
    "/api/usages/1",
    "/api/usages/count",
    "/api/usages/-1",
    "/api/usages/" + "9" * 4400,
    "/usages/1",
    "/usages/" + "9" * 400,
    "/livez",
    "/readyz",
    "/",
    "/openapi.json",
    "//api/usages",
    "/api/usages;a=b",
    "/api%2fusages",
    "/api/usages/%31",
    "/api/../api/usages",
    "http://h",
    "http://h/api/usages",
    "a://b?c#d",
    "*",
    "?",
    "/%00%ff",
    "/" + "a" * 3000,
)
METHODS = (
    *["POST"] * 14,
    "GET",
    "GET",
    "HEAD",
    "PUT",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "post",
    "X" * 99,
)
VERSIONS = (*["HTTP/1.1"] * 20, "HTTP/1.0", "HTTP/1.0", "HTTP/2.0", "")
FIELDS = (
    "Content-Type: application/json",
    "Content-Type: application/x-ndjson",
    "Content-Type: application/x-www-form-urlencoded",
    "Content-Type: text/plain",
    "Content-Encoding: gzip",
    "Content-Encoding: br",
    "Accept: application/json",
    "Authorization: Bearer x",
    "Connection: close",
    "Connection: keep-alive",
    "Connection: Upgrade, HTTP2-Settings",
    "Upgrade: websocket",
    "Upgrade: h2c",
    "Expect: 100-continue",
    "Expect: more",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: Chunked",
    "Transfer-Encoding: gzip",
    "Idempotency-Key: a b",
    "Origin: https://page.example",
    "Cookie: a=b",
    "X-Request-ID: 7f-1",
    "X-Request-ID: two words",
    "Range: bytes=0-1",
    "Host: b",
    "X: " + "y" * 900,
    "X: \u00ff\u00e9",
)
TOKENS = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b"0\r\nX: y\r\n\r\n",
    b";a=b",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Host: a\r\n",
    b"Upgrade: websocket\r\n",
    b"Connection: close\r\n",
    b"HTTP/1.0",
    b"http://",
    b"\xc2\xa0",
    b"\xe2\x84\xaa",
    b"\xff",
    b"\x00",
    b"\x0b",
    b" ",
    b"\t",
    b"%",
    b"#",
    b"?",
    b"[[[[",
    b'{"a":',
    b"1e999",
)
KNOWN = (*REFUSED_HEADS.values(), *REFUSED_CHUNKS.values(), *ACCEPTED.values())
ALPHABET = b'\r\n:;,{}[]"\\\x00\x7f \t09-+_xX\xff\xc2'


def make_case(number: int) -> Case:
    """Make the case of a number."""
    chance = random.Random(number)
    stream = b"".join(_make_message(chance) for _ in range(chance.choice((1, 1, 1, 2, 4))))
    if chance.random() < 0.6:
        stream = _mutate(chance, stream)
    return Case(number, tuple(split_stream(chance, stream, (0, 0, 0, 1, 3))))


def _make_message(chance: random.Random) -> bytes:
    kind = chance.random()
    if kind < 0.15:
        return chance.choice(KNOWN)
    if kind < 0.3:
        return render_request("POST", "/api/usages", BODY)
    path = chance.choice(PATHS)
    body = _make_body(chance, batch="batch" in path)
    fields = chance.sample(FIELDS, chance.choice((0, 1, 1, 2, 4)))
    if chance.random() < 0.1:
        fields.append(f"Idempotency-Key: {MARK}-{chance.randrange(1 << 60)}")
    if "Content-Encoding: gzip" in fields:
        body = gzip.compress(body, mtime=0)
    if "transfer-encoding: chunked" in [line.lower() for line in fields]:
        body = _chunk_body(chance, body)
    else:
        fields.append(f"Content-Length: {_choose_length(chance, len(body))}")
    if chance.random() < 0.97:
        fields.append("Host: a")
    chance.shuffle(fields)
    first = f"{chance.choice(METHODS)} {path} {chance.choice(VERSIONS)}"
    return "\r\n".join([first, *fields, "", ""]).encode("latin-1") + body


def _make_body(chance: random.Random, *, batch: bool) -> bytes:
    usages = [
        {**USAGE, "more": [chance.randrange(9), "\u00e9", None]}
        for _ in range(chance.choice((1, 2, 20)) if batch else 1)
    ]
    if not batch:
        raw = json.dumps(usages[0], ensure_ascii=chance.random() < 0.5).encode()
    elif chance.random() < 0.5:
        raw = json.dumps(usages).encode()
    else:
        raw = b"\n".join(json.dumps(usage).encode() for usage in usages)
    return _mutate(chance, raw) if chance.random() < 0.3 else raw


def _chunk_body(chance: random.Random, body: bytes) -> bytes:
    parts, at = [], 0
    while at < len(body):
        part = body[at : at + chance.choice((1, 7, 60, 5000))]
        extension = chance.choice((b"", b"", b"", b";x", b' ;x="y"', b";" + b"x" * 100))
        parts.append(b"%x%b\r\n%b\r\n" % (len(part), extension, part))
        at += len(part)
    trailer = chance.choice((b"", b"", b"X: y\r\n", b"X y\r\n"))
    return b"".join(parts) + b"0\r\n" + trailer + b"\r\n"


def _choose_length(chance: random.Random, length: int) -> str:
    if chance.random() < 0.9:
        return str(length)
    odd = (f"{length}, {length}", length + 3, max(0, length - 3), f"+{length}", "", 10**20, "1_0")
    return str(chance.choice(odd))


def _mutate(chance: random.Random, raw: bytes) -> bytes:
    mutated = bytearray(raw)
    for _ in range(chance.choice((1, 1, 2, 4, 9))):
        if not mutated:
            break
        at = chance.randrange(len(mutated))
        length = chance.randrange(1, 40)
        match chance.randrange(7):
            case 0:
                mutated[at] = chance.randrange(256)
            case 1:
                mutated[at] ^= 1 << chance.randrange(8)
            case 2:
                del mutated[at : at + chance.choice((1, length))]
            case 3:
                mutated.insert(at, chance.choice(ALPHABET))
            case 4:
                mutated[at:at] = mutated[at : at + length]
            case 5:
                mutated[at:at] = chance.choice(TOKENS)
            case _:
                del mutated[len(mutated) - length :]
    return bytes(mutated)


# --- checks -------------------------------------------------------------------------------------


async def play_all(port: int, numbers: range, at_once: int = 32) -> FuzzResult:
    """Send these cases to a port, and check all answers."""
    result, waiting = FuzzResult(), iter(numbers)

    async def work() -> None:
        for number in waiting:
            await _play_case(port, make_case(number), result)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(work())
    return result


async def _play_case(port: int, case: Case, result: FuzzResult) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received, reset = bytearray(), False
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            try:
                for packet in case.packets:
                    writer.write(packet)
                    await writer.drain()
                    await asyncio.sleep(BETWEEN_SECONDS)
                writer.write_eof()
                while chunk := await reader.read(1 << 16):
                    received += chunk
            except (ConnectionError, OSError):
                # The server closed with unread bytes, and TCP may have discarded answers.
                reset = True
                while chunk := reader._buffer:  # type: ignore[attr-defined]
                    received += chunk
                    break
    except TimeoutError:
        result.faults.append(f"case {case.number}: no end after {bytes(received[-300:])!r}")
    finally:
        writer.close()
    try:
        for status, fields, body in parse_answers(bytes(received), is_complete=not reset):
            result.statuses[status] += 1
            if status == 201 and "idempotency-replayed" not in fields:
                members = json.loads(body)
                result.ids += members["ids"] if "ids" in members else [members["id"]]
    except (AssertionError, ValueError) as fault:
        result.faults.append(f"case {case.number}: {fault!r}: {bytes(received[:600])!r}")
    if reset:
        result.max_unanswered += case.max_usages


Parsed = tuple[int, dict[str, str], bytes]


def parse_answers(received: bytes, *, is_complete: bool) -> Iterator[Parsed]:
    """Split received bytes into answers, and check the rules for each.

    Without `is_complete`, as after a reset, the last answer may be incomplete.

    Raises:
        AssertionError: an answer breaks a rule.
    """
    closed = False
    while received:
        head, blank, rest = received.partition(b"\r\n\r\n")
        if not blank:
            assert not is_complete, "a head without an end"
            return
        assert not closed, "an answer after the last one"
        first, *lines = head.split(b"\r\n")
        status_line = _STATUS.fullmatch(first)
        assert status_line, f"no status line: {first!r}"
        status = int(status_line[1])
        fields = dict(_parse_field(line) for line in lines)
        assert len(fields) == len(lines), "a field twice"
        if status == 100:
            received = rest
            continue
        length = int(fields.get("content-length", "0"))
        # The next status line directly follows the headers of an answer to HEAD.
        body = b"" if not rest or rest.startswith(b"HTTP/1.1 ") else rest[:length]
        if body and len(body) < length:
            assert not is_complete, "a body without an end"
            return
        received = rest[len(body) :]
        closed = fields.get("connection") == "close"
        _check_answer(status, fields, body)
        yield status, fields, body


def _parse_field(line: bytes) -> tuple[str, str]:
    match = _FIELD.fullmatch(line.lower())
    assert match, f"an odd field: {line!r}"
    return match[1].decode(), match[2].decode()


def _check_answer(status: int, fields: dict[str, str], body: bytes) -> None:
    assert status < 500 or status == 503, f"{status}: {body[:200]!r}"
    assert "date" in fields, "no date"
    assert "x-request-id" in fields, "no request id"
    if status >= 400 and fields.get("content-type") != "text/plain; charset=utf-8":
        assert fields["content-type"] == "application/problem+json", fields
        assert len(body) < MAX_ERROR_BYTES, f"an error of {len(body)} bytes"
        if body:
            members = json.loads(body)
            assert members["status"] == status
            assert members["title"]
            assert members["detail"]
            assert members.keys() <= PROBLEM_MEMBERS
