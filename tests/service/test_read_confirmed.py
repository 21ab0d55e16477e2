"""A lookup shows no usage whose id another one may get after a failover."""

from pathlib import Path

from testkit.api_client import USAGE, check_problem, check_stored, send
from testkit.http1 import fetch
from testkit.in_process import endpoint_of, run_committer
from testkit.processes import Stack
from testkit.servers import Server
from testkit.trio import CONFIG

LIST = "/api/usages?patientId=100"


async def test_usage_that_is_not_confirmed_is_not_shown(tmp_path: Path) -> None:
    primary = Server(tmp_path / "primary", config=CONFIG)
    replica = Server(tmp_path / "replica", config=CONFIG, replica_of=primary)
    settings = {"BUSYAPI_DURABILITY": "replicated"}
    with (
        primary,
        replica,
        Stack(tmp_path / "stack", primary, settings=settings) as stack,
    ):
        (flusher,) = stack.flushers
        flusher.pause()  # it archives nothing
        async with run_committer(endpoint_of(primary), tier="fsync") as committer:
            assert await committer.post(b'{"patientId":"100"}') == 1  # no replica is asked
        check_problem(fetch(stack.port, "/api/usages/1"), 503)
        check_problem(fetch(stack.port, LIST), 503)
        # To a list without it, the cursor must not pass it.
        others = fetch(stack.port, LIST.replace("100", "7")).json()
        assert others == {"usages": [], "next": "0", "more": False}
        assert check_stored(send(stack.port, USAGE)) == 2
        assert fetch(stack.port, "/api/usages/1").status == 200  # the commit of 2 covers it
        page = fetch(stack.port, LIST).json()
        assert ([usage["id"] for usage in page["usages"]], page["next"]) == ([1], "2")
        async with run_committer(endpoint_of(primary), tier="fsync") as committer:
            assert await committer.post(b'{"patientId":"100"}') == 3
        flusher.resume()
        assert fetch(stack.port, "/api/usages/3").status == 200
