"""Processes whose number of partitions changes, as by an upgrade of the chart."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

from testkit.history import History
from testkit.http1 import fetch
from testkit.load import Load
from testkit.ports import reserve_port
from testkit.processes import Api, Stack, Store, answers_ok
from testkit.waiting import wait_until

POST_SECONDS = 90.0


class Release:
    """A stack whose number of partitions changes."""

    def __init__(self, folder: Path, store: Store, partitions: int, total: int) -> None:
        self.folder = folder
        settings = {"BUSYAPI_PARTITIONS": str(partitions), "BUSYAPI_SEGMENT_BYTES": "200000"}
        self.stack = Stack(folder, store, apis=0, partitions=total, settings=settings)
        self.flushers = self.stack.flushers[:partitions]
        self.history = History()
        self._processes = ExitStack()
        self._apis = 0

    def __enter__(self) -> Self:
        for flusher in self.flushers:
            self._processes.enter_context(flusher)
        return self

    def __exit__(self, *details: object) -> None:
        self._processes.close()

    @contextmanager
    def run_api(self, partitions: int) -> Iterator[Api]:
        """Run an API process that posts to a number of partitions."""
        self._apis += 1
        environment = self.stack.flushers[0].environment
        settings = {n: v for n, v in environment.items() if n.startswith("BUSYAPI_")}
        settings |= {"BUSYAPI_PARTITIONS": str(partitions), "BUSYAPI_COMMIT_DEADLINE": "20"}
        api = Api(self.folder, f"api-{self._apis}-of-{partitions}", reserve_port(), settings)
        with ExitStack() as stack:
            stack.callback(api.close)
            api.spawn()
            wait_until(lambda: answers_ok(api.port, "/readyz"), "the API", seconds=30)
            yield api
            api.terminate()
            assert api.wait(30) == 0

    @contextmanager
    def post(self, api: Api) -> Iterator[None]:
        """Post singles, and batches with keys, in the background."""
        port, history = api.port, self.history
        with (
            Load(port, connections=8, pause_after_201=0.002, history=history),
            Load(port, connections=2, batch=5, keys=True, history=history),
        ):
            yield

    def roll(self, partitions: int) -> None:
        """Start the flushers of new partitions, then restart the others, as a StatefulSet does.

        It goes down from the highest number, and waits for each until /readyz answers 200. The
        setting of flushers is the largest number that there ever was.
        """
        largest = max(partitions, len(self.flushers))
        for flusher in self.stack.flushers:
            flusher.environment["BUSYAPI_PARTITIONS"] = str(largest)
        running, added = list(self.flushers), self.stack.flushers[len(self.flushers) : largest]
        for flusher in added:
            flusher.spawn()
            self._processes.callback(flusher.close)
            self.flushers.append(flusher)
        for flusher in reversed(added):
            flusher.wait_until_ready()
            assert flusher.read_metric("busyapi_flusher_ready") == 0
            text = fetch(flusher.port, "/readyz").body.decode()
            assert "waiting for the flusher of partition" in text
        for flusher in reversed(running):
            flusher.terminate()
            assert flusher.wait(30) == 0
            flusher.start()
        self.wait_until_flushing()

    def wait_until_flushing(self) -> None:
        """Wait until no flusher waits for another one."""
        for flusher in self.flushers:
            flusher.wait_until_ready()
            wait_until(
                lambda: flusher.read_metric("busyapi_flusher_ready") == 1,  # noqa: B023 - called at once
                f"{flusher} to flush",
                seconds=30,
            )

    def wait_for_posts(self, count: int) -> None:
        """Wait until this many more posts are answered."""
        end = len(self.history.requests) + count
        wait_until(
            lambda: len(self.history.requests) >= end, f"{count} posts", seconds=POST_SECONDS
        )

    def strides(self, partition: int) -> str:
        """Return the strides in a partition's archive, "" if there never was another one."""
        path = self.stack.archive / f"p{partition:02d}" / "partition.json"
        strides: str = json.loads(path.read_bytes()).get("strides", "")
        return strides
