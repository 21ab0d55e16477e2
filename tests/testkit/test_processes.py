from pathlib import Path

import pytest

from testkit.checker import Defect
from testkit.load import Load
from testkit.ports import reserve_port
from testkit.processes import Api, Flusher, answers_ok
from testkit.servers import Server
from testkit.waiting import wait_until
from tests.conftest import Stacks


def test_acknowledged_usages_are_archived_and_a_lost_file_is_noticed(
    redis7: Server, stacks: Stacks
) -> None:
    stack = stacks(redis7, apis=2, partitions=2)
    with Load(stack.port, connections=8, requests=200) as load:
        history = load.finish()
    stack.wait_until_archived()
    verdict = stack.check_history(history)
    assert verdict.ok, verdict
    assert verdict.archived == 200
    assert sum(api.read_metric("busyapi_requests_total", status="201") for api in stack.apis) == 200
    wait_until(
        lambda: (
            sum(flusher.read_metric("busyapi_archived_seq") for flusher in stack.flushers) == 200
        ),
        "the flushers to say so too",
    )
    assert stack.stop() == {"flusher-0": 0, "flusher-1": 0, "api-0": 0, "api-1": 0}

    lost = next(stack.archive.rglob("p01/*/usages-*"))
    lost.rename(stack.archive / "elsewhere")
    assert set(stack.check_history(history).defects) == {Defect.MISSING}


def test_parts_come_back_on_their_ports_with_nothing_lost(valkey: Server, stacks: Stacks) -> None:
    stack = stacks(valkey)
    (api,), (flusher,) = stack.apis, stack.flushers
    with Load(stack.port, connections=4) as load:
        for process in (api, flusher, valkey):
            process.kill9()
            process.start()
        history = load.stop()
    stack.wait_until_archived()
    verdict = stack.check_history(history)
    assert verdict.ok, verdict
    assert verdict.archived


def test_api_without_a_flusher_is_not_ready_and_shows_its_log(
    valkey: Server, tmp_path: Path
) -> None:
    api = Api(tmp_path, "api", reserve_port(), valkey.settings())
    api.spawn()
    wait_until(
        lambda: api.check_alive() and answers_ok(api.port, "/livez"),
        "the API to listen",
        seconds=30,
    )
    with pytest.raises(TimeoutError, match=r"to be ready\nend of .*api.log:\n(.|\n)*api_started"):
        api.wait_until_ready(0.1)
    api.close()


def test_process_with_a_wrong_setting_says_which(tmp_path: Path) -> None:
    settings = {"BUSYAPI_BOUND": "many"}
    with (
        pytest.raises(RuntimeError, match=r"ended with 2(.|\n)*BUSYAPI_BOUND"),
        Flusher(tmp_path, 0, reserve_port(), settings),
    ):
        pass


def test_settings_of_the_shell_do_not_reach_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUSYAPI_BOUND", "1")
    monkeypatch.setenv("PORT", "1")
    flusher = Flusher(tmp_path, 0, reserve_port(), {"BUSYAPI_PARTITIONS": "3"})
    settings = {
        name: value
        for name, value in flusher.environment.items()
        if name.startswith("BUSYAPI_") or name == "PORT"
    }
    assert settings == {
        "BUSYAPI_PARTITIONS": "3",
        "BUSYAPI_FLUSHER_PORT": str(flusher.port),
        "BUSYAPI_ARCHIVE_PORT": str(flusher.archive_port),
    }
    assert flusher.environment["PATH"]
