"""A connection with at most one pending request, and the parser of its answers."""

import re
import socket
from typing import NamedTuple

CREATED, UNAVAILABLE, REFUSED_FROM, FAILED_FROM = 201, 503, 400, 500
NO_ANSWER = 0
"""The status without an answer: the connection broke, or the time was over."""
CONNECT_SECONDS = 2.0
RECEIVE = 65_536

_length = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE).search
_id = re.compile(rb'"id": ?(\d+)').search
_nothing_stored = re.compile(rb'"stored": ?"no"').search


class Answer(NamedTuple):
    """A complete answer."""

    status: int
    id: int
    """0 if there is none."""
    refused: bool
    """Whether the answer says that nothing was stored."""
    closes_connection: bool
    """Whether the server closes the connection after it."""


class Connection:
    """One connection to the server."""

    __slots__ = ("number", "sock", "unparsed")

    def __init__(self, host: str, port: int) -> None:
        self.sock = socket.create_connection((host, port), CONNECT_SECONDS)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.settimeout(0)
        self.number = -1
        """The number of the pending request; -1 if no request is pending."""
        self.unparsed = b""

    def send(self, message: bytes) -> bool:
        """Send a request; return whether the connection accepted all of it."""
        try:
            return self.sock.send(message) == len(message)
        except OSError:
            return False

    def receive(self) -> Answer | None:
        """Receive data; return None until the answer is complete.

        Raises:
            OSError: The connection broke.
            ValueError: The answer is not HTTP as this parser understands it.
        """
        data = self.sock.recv(RECEIVE)
        if not data:
            raise ConnectionResetError("closed by the server")
        if self.unparsed:
            data = self.unparsed + data
        answer = parse(data)
        self.unparsed = data if answer is None else b""
        return answer


def parse(data: bytes) -> Answer | None:
    """Parse an answer; return None if it is not complete.

    Raises:
        ValueError: It has no length, or it is not an HTTP answer.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    length = _length(data, 0, end + 2)
    if length is None:
        raise ValueError("an answer without a length")
    if len(data) < end + 4 + int(length[1]):
        return None
    status = int(data[9:12])
    closes_connection = data.find(b"onnection: close", 0, end) >= 0
    match = _id(data, end) if status == CREATED else None
    return Answer(
        status, int(match[1]) if match else 0, is_refusal(status, data), closes_connection
    )


def is_refusal(status: int, text: bytes) -> bool:
    """Return whether an answer means that nothing was stored."""
    if status == UNAVAILABLE:
        return _nothing_stored(text) is not None
    return REFUSED_FROM <= status < FAILED_FROM
