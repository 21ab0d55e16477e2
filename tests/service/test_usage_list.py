"""Lists of a patient's usages: each usage once, whatever is archived meanwhile, and no other's."""

import random
import threading
import time
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

from busyapi.archive.index_file import decode_patients
from testkit.api_client import (
    USAGE,
    RawConnection,
    check_problem,
    check_stored,
    check_unavailable,
    send,
)
from testkit.archive.builder import find_segments
from testkit.http1 import Answer, fetch
from testkit.log_leaks import MARK
from testkit.servers import Server
from testkit.waiting import wait_until
from tests.conftest import Stacks

BATCH = "/api/usages/batch"
PATIENT, OTHER = f"{MARK}-7", f"{MARK}-70"


def fetch_page(port: int, **query: Any) -> Answer:
    """Ask for a page; `since` and `until` are `from` and `to`."""
    names = {"patient": "patientId", "since": "from", "until": "to"}
    named = {names.get(name, name): value for name, value in query.items()}
    return fetch(port, f"/api/usages?{urlencode(named)}")


def read_list(port: int, after: str = "", **query: Any) -> tuple[list[dict[str, Any]], str]:
    """Read pages until there is no more; return the usages and the last cursor."""
    usages: list[dict[str, Any]] = []
    while True:
        answer = fetch_page(port, **query, **({"after": after} if after else {}))
        assert answer.status == 200, answer
        page = answer.json()
        assert list(page) == ["usages", "next", "more"]
        ids = [usage["id"] for usage in page["usages"]]
        assert ids == sorted(ids)
        assert len(ids) <= query.get("limit", 100)
        usages += page["usages"]
        after = page["next"]
        if not page["more"]:
            return usages, after


class Posters:
    """Posts usages of two patients, alone and in batches, until the end of a `with`."""

    def __init__(self, port: int) -> None:
        self.ids: dict[str, set[int]] = {PATIENT: set(), OTHER: set()}
        self._port, self._stop = port, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        rng = random.Random(1)
        while not self._stop.is_set():
            patients = [rng.choice([PATIENT, OTHER, OTHER]) for _ in range(rng.randint(1, 6))]
            answer = send(self._port, [USAGE | {"patientId": p} for p in patients], BATCH)
            if answer.status == 201:
                for patient, usage_id in zip(patients, answer.json()["ids"], strict=True):
                    self.ids[patient].add(usage_id)
            time.sleep(0.005)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_list_continues_without_a_flusher_where_the_client_has_what_is_archived(
    stacks: Stacks, valkey: Server
) -> None:
    stack = stacks(valkey)
    (flusher,) = stack.flushers
    (api,) = stack.apis
    usage = USAGE | {"patientId": PATIENT}
    archived = [check_stored(send(stack.port, usage)) for _ in range(3)]
    stack.wait_until_archived()
    usages, after = read_list(stack.port, patient=PATIENT)
    assert [item["id"] for item in usages] == archived
    for item in usages:
        assert item == fetch(stack.port, f"/api/usages/{item['id']}").json()
    flusher.pause()
    buffered = [check_stored(send(stack.port, usage)) for _ in range(3)]
    usages, _ = read_list(stack.port, after=after, patient=PATIENT, limit=2)
    assert [item["id"] for item in usages] == buffered
    check_unavailable(fetch_page(stack.port, patient=PATIENT), "no")
    flusher.resume()
    times = [item["receivedAt"] for item in read_list(stack.port, patient=PATIENT)[0]]
    assert len(times) == 6
    ids = [i["id"] for i in read_list(stack.port, patient=PATIENT, since=times[3])[0]]
    assert ids == buffered
    assert read_list(stack.port, patient=PATIENT, until=times[0])[0] == []
    assert read_list(stack.port, patient=PATIENT, medication="Albutero")[0] == []
    assert read_list(stack.port, patient=OTHER)[0] == []
    check_problem(fetch_page(stack.port), 422)
    for raw in (b"%FF", b"\xff", "Ä".encode()):
        with RawConnection(stack.port) as connection:
            target = b"/api/usages?patientId=%b&medication=%b" % (PATIENT.encode(), raw)
            connection.send(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % target)
            problem = check_problem(connection.read_answer(), 422)
        assert problem["detail"] == "A parameter is not UTF-8 with percent-encoding."
    assert api.read_metric("busyapi_refused_total", reason="ArchiveUnavailable") == 1
    lists = api.read_metric("busyapi_request_seconds_count", route="/api/usages?patientId")
    assert lists >= 9
    posts = api.read_metric("busyapi_request_seconds_count", route="/api/usages")
    assert posts == 6


def test_a_list_has_filters_made_and_then_skips_segments_of_other_patients(
    stacks: Stacks, valkey: Server
) -> None:
    stack = stacks(valkey, settings={"BUSYAPI_SEGMENT_BYTES": "1"})
    for patient in (PATIENT, OTHER, OTHER, OTHER):
        check_stored(send(stack.port, USAGE | {"patientId": patient}))
        stack.wait_until_archived()
    wait_until(lambda: len(find_segments(stack.archive)) == 4, "four segments")
    assert not any(map(has_filter, find_indexes(stack.archive)))
    # On a busy machine, lists get 503 while the process that reads them starts.
    wait_until(lambda: fetch_page(stack.port, patient=OTHER).status == 200, "a list", seconds=60)
    wait_until(lambda: all(map(has_filter, find_indexes(stack.archive))), "filters", seconds=60)
    for segment in find_segments(stack.archive)[1:]:
        content = bytearray(segment.read_bytes())
        content[20] ^= 1
        segment.write_bytes(content)
    assert len(read_list(stack.port, patient=PATIENT)[0]) == 1
    check_unavailable(fetch_page(stack.port, patient=OTHER), "no")


def find_indexes(archive: Path) -> list[Path]:
    return sorted(archive.rglob("_usages-*[0-9].index"))


def has_filter(index: Path) -> bool:
    return decode_patients(index.read_bytes()) is not None


def test_pages_have_each_usage_once_while_usages_arrive_and_are_archived(
    stacks: Stacks, valkey: Server
) -> None:
    stack = stacks(
        valkey, partitions=2, settings={"BUSYAPI_SEGMENT_BYTES": "1", "BUSYAPI_SEGMENT_AGE": "1"}
    )
    rng = random.Random(2)
    seen: dict[str, list[int]] = {PATIENT: [], OTHER: []}
    after = dict.fromkeys(seen, "0")

    def take_page(patient: str) -> bool:
        query = {"patient": patient, "after": after[patient], "limit": rng.choice([1, 3, 50])}
        answer = fetch_page(stack.port, **query)
        if answer.status == 503:
            check_unavailable(answer, "no")
            return True
        page = answer.json()
        seen[patient] += [usage["id"] for usage in page["usages"]]
        after[patient] = page["next"]
        return bool(page["more"])

    flusher = stack.flushers[0]
    with Posters(stack.port) as posters:
        end = time.monotonic() + 3
        while time.monotonic() < end:
            if not take_page(rng.choice([PATIENT, OTHER])):
                time.sleep(0.01)
            if rng.random() < 0.02:
                assert flusher.stop() == 0  # usages gather in the stream
                flusher.start()
    for patient, ids in posters.ids.items():
        while take_page(patient):
            pass
        assert sorted(seen[patient]) == sorted(ids)
    assert len(posters.ids[PATIENT]) > 50
    stack.wait_until_archived()
    for patient, ids in posters.ids.items():
        usages, _ = read_list(stack.port, patient=patient, limit=17)
        assert [usage["id"] for usage in usages] == sorted(ids)
