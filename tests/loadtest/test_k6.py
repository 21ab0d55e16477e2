"""Each script parses, and what one counts agrees with the archive."""

import json
import subprocess

import pytest

from loadtest import k6
from loadtest.__main__ import main
from loadtest.target import Unreachable


@pytest.mark.parametrize("name", k6.NAMES)
def test_a_script_parses_and_has_thresholds(name: str) -> None:
    command = [k6.find(), "inspect", str(k6.SCRIPTS / f"{name}.js")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    options = json.loads(done.stdout)
    assert "http_req_duration{due:201}" in options["thresholds"]
    assert options["scenarios"]


def test_all_that_are_asked_for_are_there() -> None:
    wanted = {"smoke", "target", "spike", "breakpoint", "soak", "batch", "mixed"}
    assert set(k6.NAMES) == wanted


def test_the_target_is_a_million_a_minute() -> None:
    command = [k6.find(), "inspect", str(k6.SCRIPTS / "target.js")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    scenario = json.loads(done.stdout)["scenarios"]["target"]
    assert scenario["executor"] == "constant-arrival-rate"
    assert (scenario["rate"], scenario["duration"]) == (16_667, "1m0s")


@pytest.mark.parametrize(("name", "rate"), [("smoke", 40), ("mixed", 40), ("batch", 20)])
def test_a_short_run_agrees_with_the_archive(
    name: str, rate: int, at: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--env=DURATION=1s", f"--env=RATE={rate}", "--env=INVALID=0.5", "--env=DEVICES=7"]
    main(["k6", name, *at, *words])
    said = capsys.readouterr().out
    # A slow machine may cross a threshold of milliseconds, which is not what is tested.
    failed = {each for each in said.splitlines() if each.startswith("FAILED")}
    assert failed <= {"FAILED a threshold was crossed"}, said
    row = said.splitlines()[1].split()
    sent, created, refused = (int(each.replace(",", "")) for each in row[2:5])
    assert sent == created + refused
    assert created > 0 < refused


def test_a_run_with_answers_that_are_not_due_fails(
    at: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    # Nothing but broken bodies, sent as if they were good: no percentile can be held.
    base = at[0].removeprefix("--url=") + "/nowhere"
    code = main(["k6", "smoke", *at, "--env=DURATION=1s", f"--env=BASE_URL={base}"])
    assert code == 1
    said = capsys.readouterr().out
    assert "a threshold was crossed" in said
    assert "otherwise than their body deserves" in said


def test_what_was_cut_off_is_unknown_and_a_log_is_read() -> None:
    log = (
        "    usages_created.................: 90     9.0/s\n"
        "    usages_refused.................: 4      0.4/s\n"
        "    usages_sent....................: 100    10.0/s\n"
    )
    said = k6.of_log("k6", log)
    assert (said.sent, said.created, said.refused, said.unknown) == (100, 90, 4, 6)
    with pytest.raises(Unreachable):
        k6.of_log("k6", "nothing")
