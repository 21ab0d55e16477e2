"""Each script parses and runs, and its counts agree with the archive."""

import json
import re
import subprocess

import pytest

from loadtest import k6
from loadtest.__main__ import main
from loadtest.target import Target, Unreachable

RATE_NOT_OFFERED = "FAILED this machine could not offer the rate through k6: "


@pytest.mark.parametrize("name", k6.NAMES)
def test_a_script_parses_and_has_thresholds(name: str) -> None:
    command = [k6.find(), "inspect", str(k6.SCRIPTS / f"{name}.js")]
    process = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    options = json.loads(process.stdout)
    assert "http_req_duration{due:201}" in options["thresholds"]
    assert options["scenarios"]


def test_all_scripts_exist() -> None:
    expected = {"smoke", "target", "spike", "breakpoint", "soak", "batch", "mixed"}
    assert set(k6.NAMES) == expected


def test_the_target_is_a_million_a_minute() -> None:
    command = [k6.find(), "inspect", str(k6.SCRIPTS / "target.js")]
    process = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    scenario = json.loads(process.stdout)["scenarios"]["target"]
    assert scenario["executor"] == "constant-arrival-rate"
    assert (scenario["rate"], scenario["duration"]) == (16_667, "1m0s")


@pytest.mark.parametrize("name", ["target", "spike", "breakpoint", "soak"])
def test_there_are_users_for_a_pause_of_a_quarter_of_a_second(name: str) -> None:
    # With users for 50 ms, k6 dropped requests while it created more users, and blamed the machine.
    command = [k6.find(), "inspect", "--env", "RATE=300", str(k6.SCRIPTS / f"{name}.js")]
    process = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    (scenario,) = json.loads(process.stdout)["scenarios"].values()
    most = max([stage["target"] for stage in scenario.get("stages") or []] or [scenario["rate"]])
    assert scenario["preAllocatedVUs"] >= most / 4
    assert scenario["maxVUs"] >= scenario["preAllocatedVUs"]


@pytest.mark.parametrize("name", k6.NAMES)
def test_a_short_run_agrees_with_the_archive(
    name: str, target_options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    # The spike adds four seconds.
    length = "100ms" if name == "spike" else "1s"
    words = [f"--env=DURATION={length}", "--env=RATE=40", "--env=INVALID=0.5", "--env=DEVICES=7"]
    main(["k6", name, *target_options, *words])
    output = capsys.readouterr().out
    # A slow machine may cross a threshold of milliseconds. That is not tested here.
    failed = [line for line in output.splitlines() if line.startswith("FAILED")]
    slow = ("FAILED a threshold was crossed: http_req_duration{due:201}", RATE_NOT_OFFERED)
    assert all(line.startswith(slow) for line in failed), output
    row = output.splitlines()[1].split()
    sent, created, refused = (int(number.replace(",", "")) for number in row[2:5])
    assert sent == created + refused
    assert created > 0 < refused


def test_a_run_with_unexpected_answers_fails(
    target_options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    # Valid bodies at an unknown path get 404, which only the invalid ones expect.
    base = target_options[0].removeprefix("--url=") + "/nowhere"
    code = main(["k6", "smoke", *target_options, "--env=DURATION=1s", f"--env=BASE_URL={base}"])
    assert code == 1
    output = capsys.readouterr().out
    assert re.search(r"a threshold was crossed: answers_unexpected count==0, was \d+\n", output)
    assert "had an unexpected answer" in output


@pytest.mark.parametrize("rate", ["0", "-4", "0.5", "much"])
def test_an_invalid_rate_is_named(rate: str) -> None:
    command = [k6.find(), "inspect", "--env", f"RATE={rate}", str(k6.SCRIPTS / "smoke.js")]
    process = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert process.returncode != 0
    assert f"RATE is {rate}, which is not a whole number above 0" in process.stderr


def test_a_rate_that_k6_cannot_offer_is_reported(
    target_options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["k6", "target", *target_options, "--env=RATE=200000", "--env=DURATION=1s"]) == 1
    (line,) = (e for e in capsys.readouterr().out.splitlines() if e.startswith(RATE_NOT_OFFERED))
    dropped, planned = re.findall(r"([\d,]+) of ([\d,]+) were not sent", line)[0]
    assert 0 < int(dropped.replace(",", "")) < int(planned.replace(",", ""))


def test_the_breakpoint_reports_the_rate_that_it_reached(target: Target) -> None:
    outcome = k6.run("breakpoint", target, {"RATE": "300", "DURATION": "1s"})
    assert 100 < outcome.metrics["rate_reached"]["value"] <= 300
    duration = "http_req_duration{due:201}"
    broken = {
        duration: {"p(99)": 1115.4, "thresholds": {"p(99)<1000": True}},
        "http_req_failed": {"value": 0.02, "thresholds": {"rate<0.01": True, "rate<0.5": False}},
        "rate_reached": {"value": 8293.2},
    }
    when = "when 8,293 a second were offered"
    assert k6.find_failures(broken) == [
        f"a threshold was crossed: {duration} p(99)<1000, was 1,115, {when}",
        f"a threshold was crossed: http_req_failed rate<0.01, was 0.02, {when}",
    ]


def test_interrupted_requests_are_unknown_and_a_log_is_read() -> None:
    log = (
        "    usages_created.................: 90     9.0/s\n"
        "    usages_refused.................: 4      0.4/s\n"
        "    usages_sent....................: 100    10.0/s\n"
    )
    counts = k6.read_log("k6", log)
    assert (counts.sent, counts.created, counts.refused, counts.unknown) == (100, 90, 4, 6)
    with pytest.raises(Unreachable):
        k6.read_log("k6", "nothing")
