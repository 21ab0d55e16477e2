"""What the load goes to, and what can be learned of it: counts, archive, how its parts fare."""

import http.client
import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

SECONDS = 30.0
VERIFY_SECONDS = 600.0
SETTLE_SECONDS = 180.0
SETTLE_EVERY = 0.25
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
    """The target does not answer, or not as busyapi does; the message says what it said."""


@dataclass(frozen=True)
class Verified:
    """What `busyapi archive verify` found, over all partitions."""

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


def understand(text: str) -> Verified:
    """Read what it printed."""
    problems = {"missing": 0, "repeated": 0, "damaged": 0}
    for kind, first, last in _problem.findall(text):
        problems[kind] += int(last or first) - int(first) + 1 if first else 1
    return Verified(lines=sum(map(int, _usages.findall(text))), **problems)


def verify(command: Sequence[str]) -> Verified:
    """Run it.

    Raises:
        Unreachable: it could not look.
    """
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=VERIFY_SECONDS
    )
    if done.returncode == NO_ARCHIVE:
        return Verified()
    if not re.search(r"problems? found$", done.stdout, re.MULTILINE):
        raise Unreachable(f"{' '.join(command)}: {done.returncode} {done.stderr.strip()}")
    return understand(done.stdout)


@dataclass(frozen=True)
class State:
    """One look at all who count."""

    count: int
    """Ids given out, says GET /api/usages/count."""
    archived: int
    """Likewise."""
    verified: Verified | None
    """None: the archive is out of our reach."""

    @classmethod
    def read(cls, path: Path) -> "State":
        """Read what was written as JSON.

        Raises:
            ValueError: it is another thing.
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
    """How the parts fare at one time."""

    at: float
    """Seconds since the load began."""
    backlog: int
    resident: dict[str, int] = field(default_factory=dict)
    """Bytes, by process or pod."""
    cpu: dict[str, float] = field(default_factory=dict)
    """Seconds spent until then, likewise."""
    replicas: int | None = None


class Target:
    """A busyapi behind a URL, with its archive when that is a folder here."""

    every = 1.0
    """Seconds between two looks at it under load."""

    def __init__(self, url: str, host: str = "", archive: Path | None = None) -> None:
        # A path would be asked by k6 and not by the others.
        if not _url.fullmatch(url):
            raise Unreachable(f"{url}: only http://HOST[:PORT] is taken")
        parts = urlsplit(url)
        self.url = url.rstrip("/")
        try:
            self.connect = f"{parts.hostname}:{parts.port or 80}"
        except ValueError as error:
            raise Unreachable(f"{url}: {error}") from None
        self.host = host
        self.archive = archive

    def counted(self) -> dict[str, int]:
        """GET /api/usages/count.

        Raises:
            Unreachable: it was not answered with 200.
        """
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(
            str(parts.hostname), parts.port or 80, timeout=SECONDS
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
                raise Unreachable(f"{self.url}/api/usages/count: no busyapi says {body[:200]!r}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unreachable(f"{self.url}/api/usages/count: {error}") from None
        finally:
            connection.close()
        return counts

    def verified(self) -> Verified | None:
        """Prove the archive; None where it is out of reach."""
        if self.archive is None:
            return None
        command = [sys.executable, "-m", "busyapi", "archive", "verify", "--dir"]
        return verify([*command, str(self.archive)])

    def settled(self) -> State:
        """Wait until all is archived and two looks agree, then look everywhere.

        When it does not settle in time, what it says then is returned: the counts will differ.
        """
        end = time.monotonic() + SETTLE_SECONDS
        before: dict[str, int] = {}
        now = self.counted()
        while (now["buffered"] or now != before) and time.monotonic() < end:
            time.sleep(SETTLE_EVERY)
            before, now = now, self.counted()
        return State(now["count"], now["archived"], self.verified())

    def sample(self, at: float) -> Sample:
        """Look at what can be seen from outside."""
        return Sample(at, self.counted()["buffered"])

    def about(self) -> dict[str, str]:
        """Return what is under load."""
        return {"target": self.url, **({"host": self.host} if self.host else {})}
