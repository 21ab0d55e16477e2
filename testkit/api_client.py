"""What the tests of the HTTP contract ask with, and what they ask of every error."""

import contextlib
import json
import socket
import struct
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

from testkit.http1 import Answer, fetch
from testkit.log_leaks import MARK

USAGE = {
    "patientId": f"{MARK}-100",
    "timestamp": "Tue Nov 01 2016 09:11:51 GMT-0500 (CDT)",
    "medication": "Albuterol",
}
"""The one of the contract's curl line, its patient marked: see `leaks`."""

BODY = json.dumps(USAGE, separators=(",", ":")).encode()

PROBLEM_MEMBERS = {"type", "title", "status", "detail", "stored", "errors"}


def send(port: int, body: Any, path: str = "/api/usages", **headers: str) -> Answer:
    """Post bytes as they are or anything else as JSON; in a header's name _ stands for -."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"content-type": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return fetch(port, path, method="POST", body=raw, headers=named)


def check_stored(answer: Answer) -> int:
    """Return the id of a single usage that was taken."""
    assert answer.status == 201, answer
    said = answer.json()
    assert list(said) == ["id"], said
    assert answer.headers["location"] == f"/api/usages/{said['id']}"
    assert answer.headers["content-type"] == "application/json"
    number: int = said["id"]
    return number


def check_problem(answer: Answer, status: int) -> dict[str, Any]:
    """Hold an error to what every error must be, and return what it says."""
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/problem+json", answer
    said: dict[str, Any] = answer.json()
    assert said.keys() <= PROBLEM_MEMBERS, said
    assert said["type"] == "about:blank"
    assert said["title"] == HTTPStatus(status).phrase
    assert said["status"] == status
    assert said["detail"].endswith("."), said
    return said


def check_unavailable(answer: Answer, stored: str) -> dict[str, Any]:
    """Hold a 503 to it: it says whether a retry is safe, and when."""
    said = check_problem(answer, 503)
    assert said["stored"] == stored, said
    assert 1 <= int(answer.headers["retry-after"]) <= 5
    return said


def fetch_count(port: int) -> int:
    """Ask how many usages were given an id."""
    answer = fetch(port, "/api/usages/count")
    assert answer.status == 200, answer
    number: int = answer.json()["count"]
    return number


@contextlib.contextmanager
def check_nothing_stored(port: int) -> Iterator[None]:
    """Hold what happens inside to storing nothing."""
    before = fetch_count(port)
    yield
    assert fetch_count(port) == before


class RawConnection:
    """A connection that sends bytes as they are told, whole HTTP or not."""

    def __init__(self, port: int, seconds: float = 10.0) -> None:
        self.ended = False
        """Whether the server has hung up."""
        self._seconds = seconds
        self._socket = socket.create_connection(("127.0.0.1", port), seconds)
        self._heard = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def reset(self) -> None:
        """Hang up so that the server can tell it from the end of what is sent: with a RST."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def finish_sending(self) -> None:
        """Say that nothing more is sent, and listen on."""
        self._socket.shutdown(socket.SHUT_WR)

    def send(self, data: bytes) -> None:
        """Send bytes at once."""
        self._socket.settimeout(self._seconds)
        self._socket.sendall(data)

    def count_unread(self) -> int:
        """Count the bytes that are sent and that the server has not read yet."""
        own, peer = self._socket.getsockname()[1], self._socket.getpeername()[1]
        sides = {f":{own:04X}", f":{peer:04X}"}
        unread = 0
        # The server's end is in the second: it listens on both protocols with one socket.
        tables = [path for path in map(Path, ("/proc/net/tcp", "/proc/net/tcp6")) if path.exists()]
        lines = (line for path in tables for line in path.read_text("ascii").splitlines()[1:])
        for line in lines:
            _, local, remote, _, queues, *_ = line.split()
            if {local[-5:], remote[-5:]} == sides:
                sent, received = queues.split(":")
                unread += int(sent if local.endswith(f":{own:04X}") else received, 16)
        return unread

    def drip(self, data: bytes, every: float) -> int:
        """Wait, send a byte, and so on, until the server speaks or hangs up; tell how many.

        What is sent to one that has hung up resets the connection, its last words included.
        """
        for at in range(len(data)):
            if self._heard or self.ended or self.wait_for_data(every):
                return at
            try:
                self.send(data[at : at + 1])
            except ConnectionError:
                self.ended = True
                return at
        return len(data)

    def wait_for_data(self, seconds: float) -> bool:
        """Wait for more; say whether something came or the server hung up."""
        self._socket.settimeout(max(seconds, 0.001))
        try:
            chunk = self._socket.recv(1 << 16)
        except TimeoutError:
            return False
        except ConnectionError:
            chunk = b""
        self.ended = self.ended or not chunk
        self._heard += chunk
        return True

    def has_data(self) -> bool:
        """Say whether something came that no answer was read from."""
        return bool(self._heard)

    def is_answered_within(self, seconds: float) -> bool:
        """Say whether something comes within this time."""
        return bool(self._heard) or (self.wait_for_data(seconds) and not self.ended)

    def is_closed(self) -> bool:
        """Say whether the server has hung up by now; what it said before is kept."""
        while not self.ended and self.wait_for_data(0):
            pass
        return self.ended

    def read_answer(self) -> Answer:
        """Read one whole answer.

        Raises:
            EOFError: the server hung up instead.
            TimeoutError: it is not there in time.
        """
        end = time.monotonic() + self._seconds
        while (found := self._whole()) is None:
            if self.ended:
                raise EOFError(f"hung up after {self._heard!r}")
            if not self.wait_for_data(end - time.monotonic()):
                raise TimeoutError(f"after {self._seconds} s only {self._heard!r}")
        return found

    def read_head(self) -> Answer:
        """Read an answer that has headers alone, as one to HEAD.

        Raises:
            EOFError, TimeoutError: as `answer`.
        """
        while b"\r\n\r\n" not in self._heard:
            if self.ended:
                raise EOFError(f"hung up after {self._heard!r}")
            if not self.wait_for_data(self._seconds):
                raise TimeoutError(f"after {self._seconds} s only {self._heard!r}")
        head, _, rest = self._heard.partition(b"\r\n\r\n")
        found = _parsed(head, b"")
        self._heard = rest
        return found

    def _whole(self) -> Answer | None:
        head, blank, rest = self._heard.partition(b"\r\n\r\n")
        if not blank:
            return None
        found = _parsed(head, b"")
        length = int(found.headers.get("content-length", "0"))
        if len(rest) < length:
            return None
        self._heard = rest[length:]
        return found._replace(body=rest[:length])

    def is_closed_within(self, seconds: float) -> bool:
        """Say whether the server hangs up within this time and says nothing more."""
        end = time.monotonic() + seconds
        while not self.ended and not self._heard and (left := end - time.monotonic()) > 0:
            self.wait_for_data(left)
        return self.ended and not self._heard


def _parsed(head: bytes, body: bytes) -> Answer:
    first, *lines = head.decode("latin-1").split("\r\n")
    named = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in named}
    return Answer(int(first.split(" ", 2)[1]), headers, body)


def render_request(
    method: str, path: str, body: bytes = b"", *, headers: tuple[str, ...] = ()
) -> bytes:
    """Render a request; with a body, its length too."""
    lines = ["Host: 127.0.0.1", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode("latin-1") + body
