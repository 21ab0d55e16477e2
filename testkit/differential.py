"""Send the same bytes to two servers, which must answer, store and close in the same way.

A case is what one device sends on one connection, packet by packet. A request with a known answer
follows it, so a case ends when that request is answered or the server closes the connection. The
servers' own deadline, which should be short, ends a request that never arrives completely.
"""

import asyncio
import gzip
import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from testkit.api_client import BODY, USAGE
from testkit.log_leaks import MARK
from testkit.packets import BETWEEN_SECONDS, split_stream

LAST = b"GET /livez HTTP/1.1\r\nHost: last\r\n\r\n"
LAST_TYPE = b"text/plain"
TIMEOUT_SECONDS = 20.0
"""A case without an answer fails after this time."""

ID = re.compile(rb'(?i)(?<="id":)\d+|(?<=location: /api/usages/)\d+|(?<="ids":\[)[\d,]+')
REQUEST_ID = re.compile(rb"(?<=x-request-id: )[0-9a-f]{20}(?=\r)")
WAIT = re.compile(rb"(?<=retry-after: )\d+")
DATE = re.compile(rb"(?<=\r\ndate: )[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} [\d:]{8} GMT(?=\r\n)")
LENGTH = re.compile(rb"content-length: (\d+)")


@dataclass(frozen=True)
class Case:
    """The packets that one device sends."""

    packets: tuple[bytes, ...]

    def __str__(self) -> str:
        return "\n".join(repr(packet[:600]) for packet in self.packets)


@dataclass(frozen=True)
class Observation:
    """A server's reaction to a case, without ids and waiting times."""

    answers: tuple[bytes, ...]
    closed: bool
    ids: tuple[int, ...]
    """In the order of the answers. Two servers count differently."""
    reset: bool
    """The server closed with unread bytes, so its last answers may be lost."""


def are_alike(one: Observation, two: Observation) -> bool:
    """Return whether two servers reacted in the same way."""
    fewer, more = sorted((one, two), key=lambda observation: len(observation.answers))
    if len(fewer.answers) < len(more.answers) and not fewer.reset:
        return False
    return one.closed == two.closed and fewer.answers == more.answers[: len(fewer.answers)]


async def play_case(port: int, case: Case) -> Observation:
    """Send a case and read all answers.

    Raises:
        TimeoutError: the server neither answers nor closes.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers: list[bytes] = []
    closed = reset = False
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            # Twice, because a surplus byte before the first one changes that request.
            sending = asyncio.create_task(_send(writer, (*case.packets, LAST, LAST)))
            while not closed and not (answers and _is_last(answers[-1])):
                try:
                    answers.append(await _read(reader))
                except (asyncio.IncompleteReadError, ConnectionError) as error:
                    closed, reset = True, isinstance(error, ConnectionError)
            await sending
    except TimeoutError:
        raise TimeoutError(f"no end after {answers} for {case}") from None
    finally:
        writer.close()
    ids = [usage_id for answer in answers for usage_id in _find_ids(answer)]
    return Observation(tuple(map(_normalize, answers)), closed, tuple(ids), reset)


async def _send(writer: asyncio.StreamWriter, packets: tuple[bytes, ...]) -> None:
    try:
        for packet in packets:
            writer.write(packet)
            await writer.drain()
            await asyncio.sleep(BETWEEN_SECONDS)
    except ConnectionError:
        pass  # the server has closed, which the caller observes


async def _read(reader: asyncio.StreamReader) -> bytes:
    """Return one complete answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = LENGTH.search(head)
    return head + await reader.readexactly(int(length[1]) if length else 0)


def _is_last(answer: bytes) -> bool:
    return LAST_TYPE in answer


def _normalize(answer: bytes) -> bytes:
    """Replace ids, times and lengths."""
    answer = DATE.sub(b"N", answer)
    # A longer id makes a longer body.
    return LENGTH.sub(
        b"content-length: N", REQUEST_ID.sub(b"N", WAIT.sub(b"N", ID.sub(b"N", answer)))
    )


def _find_ids(answer: bytes) -> Iterator[int]:
    for match in re.finditer(rb'"id":(\d+)|"ids":\[([\d,]+)', answer):
        yield from map(int, (match[1] or match[2]).split(b","))


# --- cases --------------------------------------------------------------------------------------

BATCH = "/api/usages/batch"
PATHS = (*["/api/usages"] * 12, *[BATCH] * 4, "/api/usages/", "/api/usages?a=1", "/nowhere")
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
    "Content-Type: application/x-ndjson",
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
    "Idempotency-Key: \u00ff",
    "Idempotency-Key: " + "k" * 129,
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
    "X : space before the colon",
    " folded: line",
    "no colon",
    "",
    "X-Long: " + "x" * 3000,
    "X-Longer: " + "x" * 9000,
)
KEY_LINES = (
    *["Idempotency-Key: {}"] * 6,
    "idempotency-key:\t{}",
    "Idempotency-Key: {} ",
    "IDEMPOTENCY-KEY:{0}\r\nIdempotency-Key: {0}",
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
    json.dumps({**USAGE, "timestamp": "2016-11-01 09:11:51-0500[America/Chicago]"}).encode(),
    json.dumps({**USAGE, "timestamp": "Tue, 1 Nov 2016 14:11:51 GMT"}).encode(),
    json.dumps({**USAGE, "timestamp": 1478009511000.0, "patientId": 100.0}).encode(),
    json.dumps({**USAGE, "timestamp": 1478009511}).encode(),
    json.dumps({**USAGE, "timestamp": "1970-01-01T00:00:12Z"}).encode(),
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


BATCHES = (
    *[b"[" + b",".join([BODY] * count) + b"]" for count in (1, 2, 3, 20, 20, 400)],
    b"[%b]" % b",".join(json.dumps({**USAGE, "patientId": n}).encode() for n in range(30)),
    b"[" + BODY + b",\n" + BODY + b"]\n",
    b" [" + BODY + b"]",
    BODY + b"\n" + BODY,
    b"[]",
    b"[" + BODY + b",]",
    b"[" + BODY + b",{}]",
    b"[" + BODY + b",1]",
    b"[" + BODY[:-1] + b',"x":[1]}]',
    b"[" + BODY[:-1] + b',"x":{}}]',
    b"[" + BODY[:-1] + b',"x":1e300}]',
    b"[" + BODY[:-1] + b',"x":"[{"}]',
    b"[" + BODY[:-1] + b',"x":"' + b"7" * 70_000 + b'"}]',
    gzip.compress(b"[" + BODY + b"]", mtime=0),
)


def make_case(seed: int, credentials: Sequence[str] = ()) -> Case:
    """Make the case of a seed: mostly requests that a device might send.

    With `credentials`, which are headers, most requests have one of them, often the same one. The
    client of each case then has its own address behind a proxy.
    """
    chance = random.Random(seed)
    more: list[str] = []
    if credentials:
        address = f"{seed >> 16 & 255}.{seed >> 8 & 255}.{seed & 255}"
        more = [f"X-Forwarded-For: 198.{address}", chance.choice(credentials)]
    key = f"{MARK}-{chance.randrange(1 << 60)}"
    stream = b"".join(
        _make_message(chance, [line for line in more if chance.random() < 0.95], key)
        for _ in range(chance.choice((1, 1, 1, 1, 2, 3, 8)))
    )
    if chance.random() < 0.15:
        stream = _mutate(chance, stream)
    return Case(tuple(split_stream(chance, stream, (0, 0, 0, 1, 2, 5))))


def _make_message(chance: random.Random, more: Sequence[str], key: str) -> bytes:
    path = chance.choice(PATHS)
    body = chance.choice(BATCHES if path == BATCH and chance.random() < 0.9 else BODIES)
    lines = [*chance.sample(HEADERS, chance.choice((0, 0, 1, 1, 2, 3, 13))), *more]
    if chance.random() < 0.15:
        # No two cases have the same one: the order in which they are played differs.
        lines.append(chance.choice(KEY_LINES).format(key))
    if "Transfer-Encoding: chunked" in lines and chance.random() < 0.9:
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
        lines += [] if chance.random() < 0.9 else [f"Content-Length: {len(body)}"]
    else:
        lines += _choose_length(chance, len(body))
    if chance.random() < 0.97:
        lines.append("Host: 127.0.0.1")
    chance.shuffle(lines)
    first = f"{chance.choice(METHODS)} {path} {chance.choice(VERSIONS)}"
    return "\r\n".join([first, *lines, "", ""]).encode("latin-1") + body


def _choose_length(chance: random.Random, length: int) -> list[str]:
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
    lines: list[str] = chance.choice(odd)
    return lines


def _mutate(chance: random.Random, stream: bytes) -> bytes:
    mutated = bytearray(stream)
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(mutated))
        match chance.randrange(3):
            case 0:
                mutated[at] = chance.randrange(256)
            case 1:
                del mutated[at]
            case 2:
                mutated.insert(at, chance.choice(b'\r\n:{}"\x00 9'))
    return bytes(mutated)
