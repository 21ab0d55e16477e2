"""The output of wrk, verbatim."""

from pathlib import Path

import pytest

from perf import wrk
from perf.load import SINGLE
from perf.wrk import Result, WrkFailed, WrkMissing, parse

QUIET = """\
Running 2s test @ http://127.0.0.1:37789/api/usages
  2 threads and 256 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    69.71ms  183.40ms   1.45s    93.72%
    Req/Sec     5.23k     2.20k   11.94k    70.00%
  Latency Distribution
     50%   17.58ms
     75%   40.83ms
     90%   86.32ms
     99%    1.09s 
  20901 requests in 2.05s, 2.23MB read
Requests/sec:  10201.22
Transfer/sec:      1.09MB
"""  # noqa: W291 - wrk pads a unit of one letter

TROUBLED = """\
Running 8s test @ http://127.0.0.1:3000/api/usages
  2 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   812.11us  101.40us   9.20ms   93.72%
    Req/Sec    35.23k     2.20k   41.94k    70.00%
  Latency Distribution
     50%  790.00us
     75%  850.00us
     90%    0.90ms
     99%    2.10ms
  563201 requests in 8.10s, 60.23MB read
  Socket errors: connect 1, read 20, write 300, timeout 7
  Non-2xx or 3xx responses: 41
Requests/sec:  69531.02
Transfer/sec:      7.44MB
"""


def test_a_run_without_trouble_is_read() -> None:
    assert parse(QUIET) == Result(
        requests=20901,
        requests_per_second=10201.22,
        p50_ms=17.58,
        p99_ms=1090.0,
        not_2xx=0,
        socket_errors=0,
        timeouts=0,
    )


def test_errors_are_summed_and_timeouts_are_separate() -> None:
    result = parse(TROUBLED)
    assert (result.not_2xx, result.socket_errors, result.timeouts) == (41, 321, 7)


def test_refusals_do_not_count_in_the_rate() -> None:
    refusing = QUIET.replace("Requests/sec", "  Non-2xx or 3xx responses: 20000\nRequests/sec")
    assert parse(refusing).accepted == 901
    assert parse(refusing).accepted_per_second == pytest.approx(10201.22 * 901 / 20901)
    assert parse(QUIET).accepted_per_second == 10201.22


@pytest.mark.parametrize(
    ("printed", "milliseconds"),
    [("790.00us", 0.79), ("17.58ms", 17.58), ("1.09s ", 1090.0), ("1.50m ", 90_000.0)],
)
def test_every_unit_becomes_milliseconds(printed: str, milliseconds: float) -> None:
    assert parse(QUIET.replace("17.58ms", printed)).p50_ms == milliseconds


@pytest.mark.parametrize("missing", ["50%", "99%", "requests in", "Requests/sec"])
def test_a_missing_line_is_no_result(missing: str) -> None:
    text = "\n".join(line for line in QUIET.splitlines() if missing not in line)
    with pytest.raises(WrkFailed, match="no result"):
        parse(text)


def test_the_mean_of_the_thread_statistics_is_not_read_as_a_percentile() -> None:
    assert parse(QUIET.replace("93.72%", "50%   ")).p50_ms == 17.58


def test_a_missing_wrk_is_named_with_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(WrkMissing, match="apt-get install wrk"):
        wrk.find()


def test_a_port_without_a_listener_is_a_failure_with_the_message_of_wrk(tmp_path: Path) -> None:
    argv = wrk.command(SINGLE, SINGLE.write_script(tmp_path), "http://127.0.0.1:1", 1, 2)
    with pytest.raises(WrkFailed, match="unable to connect"):
        wrk.run(argv, tmp_path / "wrk.log", 1)
