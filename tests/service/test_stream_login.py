"""Passwords, users and TLS: let in with the right ones, told clearly with the wrong ones."""

from functools import partial
from pathlib import Path

import pytest

from busyapi.errors import RedisUnavailable
from busyapi.stream.endpoint import parse_redis_url
from testkit.certificates import make_certificates
from testkit.in_process import endpoint_of, run_committer, seed_once
from testkit.load import Load
from testkit.processes import Process, Stack
from testkit.servers import Flavour, Server
from testkit.waiting import wait_until

# One user for both roles: its own keys, the commands it sends, and nothing else.
COMMANDS = "-@all +@read +@write +@scripting +info +config|get +wait +select +ping"
USERS = (
    "user default off",
    "user operator on >operator ~* +@all",
    f"user busyapi on >s3cret ~busyapi:* resetchannels {COMMANDS}",
)


async def test_user_with_its_own_keys_and_few_commands_is_enough(
    tmp_path: Path, flavour: Flavour
) -> None:
    server = Server(
        tmp_path / "server", flavour, username="operator", password="operator", acl=USERS
    )
    with server:
        busyapi = parse_redis_url(server.url, username="busyapi", password="s3cret")
        assert await seed_once(busyapi, tmp_path / "archive") == "fresh install"
        async with run_committer(busyapi) as committer:
            await committer.wait_until_ready()
            assert await committer.post(b"{}") == 1
        for wrong in (
            parse_redis_url(server.url, username="busyapi", password="wrong"),
            parse_redis_url(server.url, username="nobody", password="s3cret"),
            parse_redis_url(server.url),
        ):
            with pytest.raises(RedisUnavailable, match="refuses the user or password"):
                await wrong.connect(0)


@pytest.mark.parametrize("password", ["", "s3cret"])
async def test_a_server_without_room_is_not_taken_for_a_wrong_password(
    tmp_path: Path, flavour: Flavour, password: str
) -> None:
    limit = ("maxclients 1",)
    with Server(tmp_path / "server", flavour, password=password, config=limit) as server:
        there = parse_redis_url(server.url, password=password)
        server.client().close()
        first = await there.connect(0)
        # The server says "max number of clients reached", which its reset may overtake.
        with pytest.raises(RedisUnavailable) as told:
            await there.connect(0)
        assert "user or password" not in str(told.value)
        await first.close()


def test_tls_with_a_user_and_a_password_file_end_to_end(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    server = Server(
        tmp_path / "server",
        "redis",
        username="operator",
        password="operator",
        acl=USERS,
        certificates=certificates,
    )
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    settings = {
        "BUSYAPI_REDIS_USERNAME": "busyapi",
        "BUSYAPI_REDIS_PASSWORD": "",
        "BUSYAPI_REDIS_PASSWORD_FILE": str(secret),
    }
    with server, Stack(tmp_path / "stack", server, settings=settings) as stack:
        with Load(stack.port, connections=2, requests=50) as load:
            load.finish()
        stack.wait_until_archived()
        verdict = stack.check_history(load.history)
        assert verdict.ok, verdict
        assert verdict.archived == 50

        # A wrong password from now on: running connections stay, a restart is refused.
        secret.write_text("wrong")
        for each in stack.processes:
            each.kill9()
            each.spawn()
            wait_until(partial(refused, each), "the log to say why", seconds=20)
            assert "s3cret" not in each.tail()
            assert not each.is_ready()
        # A rotated secret is taken without a restart.
        secret.write_text("s3cret")
        for each in stack.processes:
            each.wait_until_ready()


def refused(process: Process) -> bool:
    return "refuses the user or password" in process.tail()


async def test_server_that_nobody_vouches_for_is_not_spoken_to(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    with Server(tmp_path / "server", "redis", certificates=certificates) as server:
        connection = await endpoint_of(server).connect(0)
        await connection.close()
        with pytest.raises(
            RedisUnavailable, match=r"no connection to Redis.*certificate is refused"
        ):
            await parse_redis_url(server.url).connect(0)
        with pytest.raises(RedisUnavailable):
            await parse_redis_url(server.url.replace("rediss", "redis")).connect(0)
