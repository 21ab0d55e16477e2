"""The target of a load: its counts, its archive, and samples of its parts."""

import http.client
import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 30.0
VERIFY_SECONDS = 600.0
SETTLE_SECONDS = 180.0
SETTLE_INTERVAL_SECONDS = 0.25
NO_ARCHIVE = 2
"""Exit code of `busyapi archive verify` where nothing was ever archived."""
ARCHIVE = "/var/lib/busyapi/archive"
COUNTS = {"count", "archived", "buffered"}

_url = re.compile(r"http://[^/?#@:][^/?#@]*/?")
_usages = re.compile(r"^partition \d+: (\d+) usages", re.MULTILINE)
_problem = re.compile(
    r"^  (missing|repeated|damaged) +(?:ids? (\d+)(?: to (\d+))? )?", re.MULTILINE
)


class Unreachable(Exception):
    """The target does not answer, or not as busyapi does. The message has its answer."""


@dataclass(frozen=True)
class Verified:
    """The findings of `busyapi archive verify`, over all partitions."""

    lines: int = 0
    missing: int = 0
    repeated: int = 0
    damaged: int = 0

    def __add__(self, other: "Verified") -> "Verified":
        return Verified(
            self.lines + other.lines,
            self.missing + other.missing,
            self.repeated + other.repeated,
            self.damaged + other.damaged,
        )


def parse_verify_output(text: str) -> Verified:
    """Parse the output of `busyapi archive verify`."""
    problems = {"missing": 0, "repeated": 0, "damaged": 0}
    for kind, first, last in _problem.findall(text):
        problems[kind] += int(last or first) - int(first) + 1 if first else 1
    return Verified(lines=sum(map(int, _usages.findall(text))), **problems)


def verify(command: Sequence[str]) -> Verified:
    """Run `busyapi archive verify`.

    Raises:
        Unreachable: It could not read the archive.
    """
    process = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=VERIFY_SECONDS
    )
    if process.returncode == NO_ARCHIVE:
        return Verified()
    if not re.search(r"problems? found$", process.stdout, re.MULTILINE):
        raise Unreachable(f"{' '.join(command)}: {process.returncode} {process.stderr.strip()}")
    return parse_verify_output(process.stdout)


@dataclass(frozen=True)
class State:
    """All counts of a target at one time."""

    count: int
    """Ids issued, by GET /api/usages/count."""
    archived: int
    """Archived usages, by the same answer."""
    verified: Verified | None
    """None: the archive cannot be reached."""

    @classmethod
    def read(cls, path: Path) -> "State":
        """Read a state from a JSON file.

        Raises:
            ValueError: The file has no state.
        """
        try:
            content = json.loads(path.read_text())
            verified = content["verified"]
            return cls(
                content["count"], content["archived"], Verified(**verified) if verified else None
            )
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{path} holds no snapshot") from None


@dataclass(frozen=True)
class Sample:
    """The backlog and the parts of a target at one time."""

    at: float
    """Seconds since the load began."""
    backlog: int
    resident: dict[str, int] = field(default_factory=dict)
    """Bytes, by process or pod."""
    cpu: dict[str, float] = field(default_factory=dict)
    """CPU seconds until then, by process or pod."""
    replicas: int | None = None
    waiting: dict[str, float] = field(default_factory=dict)
    """Seconds for which threads were ready and had no core, until then, by process."""
    outside: dict[str, float] = field(default_factory=dict)
    """CPU seconds that others used, until then: other programs, the hypervisor."""


@dataclass(frozen=True)
class Event:
    """What may have delayed answers."""

    name: str
    at: float
    """The start, in seconds since the load began."""
    seconds: float
    longest_ms: float | None = None
    """For how long it held up others at most, if that is known."""

    def shift(self, seconds: float) -> "Event":
        """Return it with a time from another origin."""
        return replace(self, at=self.at + seconds)


class Target:
    """A busyapi behind a URL, with its archive if that is a local folder."""

    interval_seconds = 1.0
    """Between two samples under load."""

    def __init__(self, url: str, host: str = "", archive: Path | None = None) -> None:
        # k6 would use a path, and the other tools would not.
        if not _url.fullmatch(url):
            raise Unreachable(f"{url}: the URL must be http://HOST[:PORT]")
        parts = urlsplit(url)
        self.url = url.rstrip("/")
        try:
            self.connect = f"{parts.hostname}:{parts.port or 80}"
        except ValueError as error:
            raise Unreachable(f"{url}: {error}") from None
        self.host = host
        self.archive = archive
        self.authorization = ""
        """The Authorization header of a post."""

    def fetch_counts(self) -> dict[str, int]:
        """GET /api/usages/count.

        Raises:
            Unreachable: The answer is not 200.
        """
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(
            str(parts.hostname), parts.port or 80, timeout=TIMEOUT_SECONDS
        )
        try:
            headers = {"Host": self.host} if self.host else {}
            connection.request("GET", "/api/usages/count", headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != http.HTTPStatus.OK:
                raise Unreachable(f"{self.url}/api/usages/count: {answer.status} {body[:200]!r}")
            counts: dict[str, int] = json.loads(body)
            if not isinstance(counts, dict) or not counts.keys() >= COUNTS:
                raise Unreachable(f"{self.url}/api/usages/count: not busyapi: {body[:200]!r}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unreachable(f"{self.url}/api/usages/count: {error}") from None
        finally:
            connection.close()
        return counts

    def verify_archive(self) -> Verified | None:
        """Verify the archive; return None if it cannot be reached."""
        if self.archive is None:
            return None
        command = [sys.executable, "-m", "busyapi", "archive", "verify", "--dir"]
        return verify([*command, str(self.archive)])

    def wait_settled(self) -> State:
        """Wait until all is archived and two answers are equal, then read all counts.

        If that takes too long, return the counts of that time: they will disagree.
        """
        end = time.monotonic() + SETTLE_SECONDS
        before: dict[str, int] = {}
        now = self.fetch_counts()
        while (now["buffered"] or now != before) and time.monotonic() < end:
            time.sleep(SETTLE_INTERVAL_SECONDS)
            before, now = now, self.fetch_counts()
        return State(now["count"], now["archived"], self.verify_archive())

    def sample(self, at: float) -> Sample:
        """Sample the backlog, which is visible from outside."""
        return Sample(at, self.fetch_counts()["buffered"])

    def list_events(self, since: float) -> list[Event]:
        """List what may have delayed answers; `since` is the start of the load as a time."""
        return []

    def about(self) -> dict[str, str]:
        """Return a description of the target."""
        return {"target": self.url, **({"host": self.host} if self.host else {})}
