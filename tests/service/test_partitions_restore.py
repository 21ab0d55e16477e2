"""A partition is restored from before its stride was widened, and Redis is lost too."""

import shutil
from pathlib import Path

import pytest

from busyapi.cli import main
from testkit.api_client import USAGE, check_problem, check_stored, send
from testkit.http1 import fetch
from testkit.processes import Api
from testkit.release import Release
from testkit.servers import Server
from testkit.waiting import wait_until

POSTS = 30


def post(api: Api, name: str, count: int = POSTS) -> list[int]:
    """Post usages with keys, which partition 0 gets, or without."""
    keys = [{"idempotency_key": f"{name}-{n}"} if name else {} for n in range(count)]
    return [check_stored(send(api.port, {**USAGE, "n": n}, **key)) for n, key in enumerate(keys)]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("is_shrunk", [False, True])
def test_usages_of_the_child_are_found_and_no_id_comes_twice(
    valkey: Server, tmp_path: Path, *, is_shrunk: bool
) -> None:
    with Release(tmp_path, valkey, 1, 2) as release, release.run_api(2) as api:
        parent, child = release.stack.flushers
        parent.wait_until_ready()
        release.stack.port = api.port
        before = post(api, "before")
        release.stack.wait_until_archived()
        folder, backup = release.stack.archive / "p00", tmp_path / "backup"
        shutil.copytree(folder, backup, ignore=shutil.ignore_patterns(".lock", ".reserve"))
        release.roll(2)
        wait_until(lambda: api.read_metric("busyapi_committers_ready") == 2, "both partitions")
        lost = post(api, "lost")
        kept = [i for i in post(api, "", 4 * POSTS) if i % 2 == 0 and i not in before]
        assert kept
        release.stack.wait_until_archived()
        if is_shrunk:
            release.roll(1)
        for flusher in (parent, child):
            flusher.terminate()
            assert flusher.wait(30) == 0
        shutil.rmtree(folder)
        shutil.copytree(backup, folder)
        valkey.stop()
        valkey.wipe()
        valkey.start()
        arguments = ["--dir", str(release.stack.archive), "--partition", "0"]
        last = str(max(*lost, *kept))
        assert main(["archive", "confirm-restore", *arguments, "--last-id", last, "--yes"]) == 0
        for flusher in (parent, child):
            flusher.spawn()
        release.wait_until_flushing()
        for usage_id in (*before, *kept):
            answer = fetch(api.port, f"/api/usages/{usage_id}")
            assert answer.status == 200, (usage_id, answer)
            assert answer.json()["id"] == usage_id
        check_problem(fetch(api.port, f"/api/usages/{lost[-1]}"), 404)
        new = [*post(api, "new"), *post(api, "", 4 * POSTS)]
        assert len({*before, *lost, *kept, *new}) == len(before + lost + kept + new)
        release.stack.wait_until_archived()
        assert release.strides(0).split()[-1].endswith(":2")
