"""The same bytes to two servers: what each answers, stores and closes must be the same.

A case is what one device sends on one connection, packet by packet. Behind it goes a request whose
answer is known, so that a case has been answered when that one is, or when the server hangs up. A
request that never arrives whole is ended by the servers' own deadline, which should be short.
"""

import asyncio
import gzip
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from testkit.api_client import BODY, USAGE
from testkit.log_leaks import MARK

LAST = b"GET /livez HTTP/1.1\r\nHost: last\r\n\r\n"
LAST_TYPE = b"text/plain"
TIMEOUT_SECONDS = 20.0
"""Until a case that nobody answers is a failure."""
BETWEEN_SECONDS = 0.001
"""Seconds between packets, so that they are not one by the time they are read."""

ID = re.compile(rb'(?i)(?<="id":)\d+|(?<=location: /api/usages/)\d+|(?<="ids":\[)[\d,]+')
REQUEST_ID = re.compile(rb"(?<=x-request-id: )[0-9a-f]{12}-[0-9a-f]+(?=\r)")
WAIT = re.compile(rb"(?<=retry-after: )\d+")
DATE = re.compile(rb"(?<=\r\ndate: )[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} [\d:]{8} GMT(?=\r\n)")
LENGTH = re.compile(rb"content-length: (\d+)")


@dataclass(frozen=True)
class Case:
    """What one device sends."""

    packets: tuple[bytes, ...]

    def __str__(self) -> str:
        return "\n".join(repr(each[:600]) for each in self.packets)


@dataclass(frozen=True)
class Observation:
    """What came of it, with ids and waiting times left out."""

    answers: tuple[bytes, ...]
    closed: bool
    ids: tuple[int, ...]
    """In the order of the answers; two servers count differently."""
    reset: bool
    """The server hung up with bytes unread, and so may have taken its last answers back."""


def are_alike(one: Observation, two: Observation) -> bool:
    """Say whether two servers did the same."""
    fewer, more = sorted((one, two), key=lambda each: len(each.answers))
    if len(fewer.answers) < len(more.answers) and not fewer.reset:
        return False
    return one.closed == two.closed and fewer.answers == more.answers[: len(fewer.answers)]


async def play_case(port: int, case: Case) -> Observation:
    """Send a case and read all that is answered.

    Raises:
        TimeoutError: neither an answer nor an end.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers: list[bytes] = []
    closed = reset = False
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            # Twice: a byte too many before the first makes another request of it.
            sending = asyncio.create_task(_send(writer, (*case.packets, LAST, LAST)))
            while not closed and not (answers and _is_last(answers[-1])):
                try:
                    answers.append(await _read(reader))
                except (asyncio.IncompleteReadError, ConnectionError) as error:
                    closed, reset = True, isinstance(error, ConnectionError)
            await sending
    except TimeoutError:
        raise TimeoutError(f"after {answers} nothing more for {case}") from None
    finally:
        writer.close()
    ids = [int(n) for each in answers for found in _ids(each) for n in found]
    return Observation(tuple(_plain(each) for each in answers), closed, tuple(ids), reset)


async def _send(writer: asyncio.StreamWriter, packets: tuple[bytes, ...]) -> None:
    try:
        for each in packets:
            writer.write(each)
            await writer.drain()
            await asyncio.sleep(BETWEEN_SECONDS)
    except ConnectionError:
        pass  # the server has hung up, which is what is looked at


async def _read(reader: asyncio.StreamReader) -> bytes:
    """Return one whole answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = LENGTH.search(head)
    return head + await reader.readexactly(int(length[1]) if length else 0)


def _is_last(answer: bytes) -> bool:
    return LAST_TYPE in answer


def _plain(answer: bytes) -> bytes:
    answer = DATE.sub(b"N", answer)
    # A longer id makes a longer body.
    return LENGTH.sub(
        b"content-length: N", REQUEST_ID.sub(b"N", WAIT.sub(b"N", ID.sub(b"N", answer)))
    )


def _ids(answer: bytes) -> Iterator[list[bytes]]:
    for found in re.finditer(rb'"id":(\d+)|"ids":\[([\d,]+)', answer):
        yield (found[1] or found[2]).split(b",")


# --- cases --------------------------------------------------------------------------------------

PATHS = (*["/api/usages"] * 12, "/api/usages/", "/api/usages?a=1", "/api/usages/batch", "/nowhere")
METHODS = (*["POST"] * 12, "GET", "PUT", "post")
VERSIONS = (*["HTTP/1.1"] * 14, "HTTP/1.0", "HTTP/2.0", "http/1.1")
HEADERS = (
    "Host: another",
    "User-Agent: inhaler/2.1 (firmware 7)",
    "Accept: */*",
    "Accept-Encoding: gzip, deflate",
    "Content-Type: application/json",
    "content-type: application/json; charset=utf-8",
    "CONTENT-TYPE: text/plain",
    "Content-Type: application/x-www-form-urlencoded",
    "Connection: keep-alive",
    "connection: Keep-Alive",
    "Connection: keep-alive ",
    "Connection:close",
    "Connection: upgrade",
    "Upgrade: websocket",
    "Upgrade: h2c",
    "Expect: 100-continue",
    "Expect: more",
    "Origin: https://page.example",
    "Content-Encoding: gzip",
    "Content-Encoding: br",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: identity",
    "Idempotency-Key: not one\tword",
    "Authorization: Bearer abc",
    "X-Forwarded-For: 10.0.0.1, 10.0.0.2",
    "X-Real-Ip: 10.0.0.1",
    "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "Cookie: a=b; c=d",
    "X-Request-ID: 7f1c.a:b_c-d",
    "x-request-id:\tother",
    "X-Request-Id: two words",
    "X-Request-ID: trailing ",
    "X-Request-ID:\nTransfer-Encoding:chunked",
    "X-Request-ID: \x0ba",
    "X-Request-ID:",
    "X-Request-ID: " + "x" * 129,
    "X: \u00ff\u00fe",
    "X:",
    "X : blank before the colon",
    " folded: line",
    "no colon",
    "",
    "X-Long: " + "x" * 3000,
    "X-Longer: " + "x" * 9000,
)
BODIES = (
    *[BODY] * 10,
    b" " + BODY,
    b"\xef\xbb\xbf" + BODY,
    BODY + b"\n",
    BODY[:-1],
    b"",
    b"{}",
    b"[]",
    b"null",
    b"[" + BODY + b"," + BODY + b"]",
    json.dumps({**USAGE, "patientId": 7, "more": {"a": [1, 2.5, None, "\u00e9\u2028"]}}).encode(),
    json.dumps({**USAGE, "timestamp": 1478009511000}).encode(),
    json.dumps({**USAGE, "timestamp": "2016-11-01T09:11:51-05:00"}).encode(),
    json.dumps({**USAGE, "timestamp": "yesterday"}).encode(),
    json.dumps({**USAGE, "medication": "x" * 257}).encode(),
    BODY[:-1] + b',"patientId":"200"}',
    BODY[:-1] + b',"more":"\xff"}',
    BODY[:-1] + b',"more":1e999}',
    BODY[:-1] + b',"more":123456789012345678901234567890}',
    BODY[:-1] + b',"more":' + b"[" * 70 + b"]" * 70 + b"}",
    BODY[:-1] + b',"more":"' + b"x" * 5000 + b'"}',
    BODY[:-1] + b',"more":"' + b"x" * 70_000 + b'"}',
    b"patientId=100&medication=Albuterol&timestamp=1478009511000",
    gzip.compress(BODY, mtime=0),
)


def make_case(seed: int) -> Case:
    """Make the case of a number: mostly requests that a device might send."""
    chance = random.Random(seed)
    stream = b"".join(_message(chance) for _ in range(chance.choice((1, 1, 1, 1, 2, 3, 8))))
    if chance.random() < 0.15:
        stream = _mutated(chance, stream)
    return Case(tuple(_split(chance, stream)))


def _message(chance: random.Random) -> bytes:
    body = chance.choice(BODIES)
    lines = chance.sample(HEADERS, chance.choice((0, 0, 1, 1, 2, 3, 13)))
    if chance.random() < 0.1:
        lines.append(f"Idempotency-Key: {MARK}-{chance.randrange(1 << 60)}")
    if "Transfer-Encoding: chunked" in lines and chance.random() < 0.9:
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
        lines += [] if chance.random() < 0.9 else [f"Content-Length: {len(body)}"]
    else:
        lines += _length(chance, len(body))
    if chance.random() < 0.97:
        lines.append("Host: 127.0.0.1")
    chance.shuffle(lines)
    first = f"{chance.choice(METHODS)} {chance.choice(PATHS)} {chance.choice(VERSIONS)}"
    return "\r\n".join([first, *lines, "", ""]).encode("latin-1") + body


def _length(chance: random.Random, length: int) -> list[str]:
    if chance.random() < 0.8:
        return [f"Content-Length: {length}"]
    odd: Any = [
        [],
        [f"content-length:{length}"],
        [f"Content-Length: {length} "],
        [f"Content-Length: 000{length}"],
        [f"Content-Length: +{length}"],
        [f"Content-Length: {length}", f"Content-Length: {length}"],
        [f"Content-Length: {max(length - 3, 0)}"],
        [f"Content-Length: {length + 3}"],
        ["Content-Length: 99999999999999999999"],
    ]
    found: list[str] = chance.choice(odd)
    return found


def _mutated(chance: random.Random, stream: bytes) -> bytes:
    found = bytearray(stream)
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(found))
        match chance.randrange(3):
            case 0:
                found[at] = chance.randrange(256)
            case 1:
                del found[at]
            case 2:
                found.insert(at, chance.choice(b'\r\n:{}"\x00 9'))
    return bytes(found)


def _split(chance: random.Random, stream: bytes) -> Iterator[bytes]:
    cuts = sorted(
        chance.randrange(len(stream) + 1) for _ in range(chance.choice((0, 0, 0, 1, 2, 5)))
    )
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        if start < end:
            yield stream[start:end]
