"""Lists of a patient's usages over HTTP, from a `busyapi dev` on an archive."""

import json
import random
import time
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

from bench.archive_fill import NUMBER_SHARE, PATIENTS
from bench.progress import print_progress
from testkit.dev_process import Dev

WARM_UP = 5
WHOLE_LISTS = 10
PAGE_LIMIT = 100


class Pages(NamedTuple):
    """What some requests took."""

    what: str
    seconds: list[float]
    usages: list[int]

    def cells(self) -> tuple[str, ...]:
        """Return the cells of a table."""
        return (
            self.what,
            f"{len(self.seconds)}",
            *(f"{1000 * self._quantile(share):.0f}" for share in (0.5, 0.95, 1)),
            f"{sum(self.usages) / len(self.usages):.1f}",
        )

    def _quantile(self, share: float) -> float:
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


HEAD = ("GET /api/usages", "requests", "p50 ms", "p95 ms", "longest ms", "usages each")


def measure_lists(folder: Path, partitions: int, requests: int) -> Iterator[Pages]:
    """Start `busyapi dev` in a folder whose state holds an archive, and ask for lists in turn."""
    chance = random.Random(5)  # noqa: S311 - no secret
    patients = [_name(int(chance.random() * PATIENTS)) for _ in range(requests)]
    nobody = [f"nobody-{number}" for number in range(requests)]
    dev = Dev(folder, "--partitions", str(partitions))
    print_progress("starting busyapi dev")
    with dev:
        client = HTTPConnection("127.0.0.1", dev.port, timeout=60)
        for patient in patients[:WARM_UP]:
            _get(client, patient)
        print_progress(f"{requests} patients")
        yield _measure(client, f"the first page of a patient, limit {PAGE_LIMIT}", patients)
        yield _measure(client, "a patient without a usage", nobody)
        print_progress("whole lists")
        wholes = [_read_all(client, patient) for patient in patients[:WHOLE_LISTS]]
        yield Pages(
            "each page of whole lists",
            [seconds for whole in wholes for seconds in whole.seconds],
            [count for whole in wholes for count in whole.usages],
        )
        yield Pages(
            "a whole list",
            [sum(whole.seconds) for whole in wholes],
            [sum(whole.usages) for whole in wholes],
        )


def _name(patient: int) -> str:
    return str(patient) if patient < NUMBER_SHARE * PATIENTS else f"{patient:06d}"


def _measure(client: HTTPConnection, what: str, patients: Sequence[str]) -> Pages:
    pages = Pages(what, [], [])
    for patient in patients:
        _add(pages, client, patient)
    return pages


def _read_all(client: HTTPConnection, patient: str) -> Pages:
    pages = Pages(patient, [], [])
    after = ""
    while True:
        answer = _add(pages, client, patient, after)
        if not answer["more"]:
            return pages
        after = answer["next"]


def _add(pages: Pages, client: HTTPConnection, patient: str, after: str = "") -> Any:
    started = time.monotonic()
    answer = _get(client, patient, after)
    pages.seconds.append(time.monotonic() - started)
    pages.usages.append(len(answer["usages"]))
    return answer


def _get(client: HTTPConnection, patient: str, after: str = "") -> Any:
    query = f"patientId={patient}&limit={PAGE_LIMIT}" + (f"&after={after}" if after else "")
    client.request("GET", f"/api/usages?{query}")
    answer = client.getresponse()
    body = answer.read()
    if answer.status != 200:  # noqa: PLR2004
        raise RuntimeError(f"a list was answered with {answer.status}")
    return json.loads(body)
