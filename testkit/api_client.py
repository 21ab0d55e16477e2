"""Clients for the tests of the HTTP contract, and checks for every answer."""

import contextlib
import json
import socket
import struct
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

from testkit.http1 import Answer, fetch, parse_head
from testkit.log_leaks import MARK

USAGE = {
    "patientId": f"{MARK}-100",
    "timestamp": "Tue Nov 01 2016 09:11:51 GMT-0500 (CDT)",
    "medication": "Albuterol",
}
"""The usage of the contract's curl line, with a mark in the patient id: see `log_leaks`."""

BODY = json.dumps(USAGE, separators=(",", ":")).encode()

PROBLEM_MEMBERS = {"type", "title", "status", "detail", "stored", "errors"}


def send(port: int, body: Any, path: str = "/api/usages", **headers: str) -> Answer:
    """Post bytes unchanged or another value as JSON. _ in a header's name becomes a hyphen."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"content-type": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return fetch(port, path, method="POST", body=raw, headers=fields)


def check_stored(answer: Answer) -> int:
    """Check the 201 for a single usage, and return its id."""
    assert answer.status == 201, answer
    members = answer.json()
    assert list(members) == ["id"], members
    assert answer.headers["location"] == f"/api/usages/{members['id']}"
    assert answer.headers["content-type"] == "application/json"
    usage_id: int = members["id"]
    return usage_id


def check_problem(answer: Answer, status: int) -> dict[str, Any]:
    """Check the rules for every error, and return its members."""
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/problem+json", answer
    members: dict[str, Any] = answer.json()
    assert members.keys() <= PROBLEM_MEMBERS, members
    assert members["type"] == "about:blank"
    assert members["title"] == HTTPStatus(status).phrase
    assert members["status"] == status
    assert members["detail"].endswith("."), members
    return members


def check_unavailable(answer: Answer, stored: str) -> dict[str, Any]:
    """Check that a 503 has this `stored` and a Retry-After, and return its members."""
    members = check_problem(answer, 503)
    assert members["stored"] == stored, members
    assert 1 <= int(answer.headers["retry-after"]) <= 5
    return members


def fetch_count(port: int) -> int:
    """Return the number of usages that have an id."""
    answer = fetch(port, "/api/usages/count")
    assert answer.status == 200, answer
    number: int = answer.json()["count"]
    return number


@contextlib.contextmanager
def check_nothing_stored(port: int) -> Iterator[None]:
    """Check that nothing is stored within the `with`."""
    before = fetch_count(port)
    yield
    assert fetch_count(port) == before


class RawConnection:
    """A connection that sends any bytes, valid HTTP or not."""

    def __init__(self, port: int, seconds: float = 10.0) -> None:
        self.ended = False
        """Whether the server has closed the connection."""
        self._seconds = seconds
        self._socket = socket.create_connection(("127.0.0.1", port), seconds)
        self._received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def reset(self) -> None:
        """Close the connection with a RST, which a server can distinguish from a half-close."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def finish_sending(self) -> None:
        """Half-close the connection: send no more, but receive."""
        self._socket.shutdown(socket.SHUT_WR)

    def send(self, data: bytes) -> None:
        """Send bytes in one call."""
        self._socket.settimeout(self._seconds)
        self._socket.sendall(data)

    def count_unread(self) -> int:
        """Count the bytes that were sent and that the server has not read yet."""
        own, peer = self._socket.getsockname()[1], self._socket.getpeername()[1]
        sides = {f":{own:04X}", f":{peer:04X}"}
        unread = 0
        # The server's end is in tcp6: its one socket listens on both protocols.
        tables = [path for path in map(Path, ("/proc/net/tcp", "/proc/net/tcp6")) if path.exists()]
        lines = (line for path in tables for line in path.read_text("ascii").splitlines()[1:])
        for line in lines:
            _, local, remote, _, queues, *_ = line.split()
            if {local[-5:], remote[-5:]} == sides:
                sent, received = queues.split(":")
                unread += int(sent if local.endswith(f":{own:04X}") else received, 16)
        return unread

    def drip(self, data: bytes, every: float) -> int:
        """Send a byte after each wait until the server answers or closes. Return how many.

        A byte sent after the server has closed resets the connection, and its last answer is lost.
        """
        for at in range(len(data)):
            if self._received or self.ended or self.wait_for_data(every):
                return at
            try:
                self.send(data[at : at + 1])
            except ConnectionError:
                self.ended = True
                return at
        return len(data)

    def wait_for_data(self, seconds: float) -> bool:
        """Wait for data or a close, and return whether either came in time."""
        self._socket.settimeout(max(seconds, 0.001))
        try:
            chunk = self._socket.recv(1 << 16)
        except TimeoutError:
            return False
        except ConnectionError:
            chunk = b""
        self.ended = self.ended or not chunk
        self._received += chunk
        return True

    def has_data(self) -> bool:
        """Return whether it has received data that is not read yet."""
        return bool(self._received)

    def is_answered_within(self, seconds: float) -> bool:
        """Return whether data comes within this time."""
        return bool(self._received) or (self.wait_for_data(seconds) and not self.ended)

    def is_closed(self) -> bool:
        """Return whether the server has closed by now. Data from before that stays readable."""
        while not self.ended and self.wait_for_data(0):
            pass
        return self.ended

    def read_answer(self) -> Answer:
        """Read one complete answer.

        Raises:
            EOFError: the server closed the connection before its end.
            TimeoutError: it is not complete in time.
        """
        end = time.monotonic() + self._seconds
        while (answer := self._take_answer()) is None:
            if self.ended:
                raise EOFError(f"closed after {self._received!r}")
            if not self.wait_for_data(end - time.monotonic()):
                raise TimeoutError(f"after {self._seconds} s only {self._received!r}")
        return answer

    def read_head(self) -> Answer:
        """Read an answer without a body, such as one to HEAD.

        Raises:
            EOFError, TimeoutError: as in `read_answer`.
        """
        while b"\r\n\r\n" not in self._received:
            if self.ended:
                raise EOFError(f"closed after {self._received!r}")
            if not self.wait_for_data(self._seconds):
                raise TimeoutError(f"after {self._seconds} s only {self._received!r}")
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        return parse_head(head)

    def _take_answer(self) -> Answer | None:
        raw, blank, rest = self._received.partition(b"\r\n\r\n")
        if not blank:
            return None
        head = parse_head(raw)
        length = int(head.headers.get("content-length", "0"))
        if len(rest) < length:
            return None
        self._received = rest[length:]
        return head._replace(body=rest[:length])

    def is_closed_within(self, seconds: float) -> bool:
        """Return whether the server closes within this time without more data."""
        end = time.monotonic() + seconds
        while not self.ended and not self._received and (left := end - time.monotonic()) > 0:
            self.wait_for_data(left)
        return self.ended and not self._received


def render_request(
    method: str, path: str, body: bytes = b"", *, headers: tuple[str, ...] = ()
) -> bytes:
    """Render a request. With a body, add its Content-Length."""
    lines = ["Host: 127.0.0.1", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode("latin-1") + body
