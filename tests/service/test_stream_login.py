"""Passwords, users and TLS: the right ones work, and the wrong ones give a clear error."""

from functools import partial
from pathlib import Path

import pytest

from busyapi.errors import RedisUnavailable
from busyapi.stream.redis_url import parse_redis_url
from testkit.certificates import make_certificates
from testkit.in_process import endpoint_of, run_committer, seed_once
from testkit.load import Load
from testkit.processes import Process, Stack
from testkit.servers import Flavour, Server
from testkit.waiting import wait_until

# One user for both roles, with only its own keys and the commands it sends.
COMMANDS = "-@all +@read +@write +@scripting +info +config|get +wait +select +ping"
USERS = (
    "user default off",
    "user operator on >operator ~* +@all",
    f"user busyapi on >s3cret ~busyapi:* resetchannels {COMMANDS}",
)


async def test_user_with_only_its_own_keys_and_few_commands_is_enough(
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
            parse_redis_url(server.url, username="unknown", password="s3cret"),
            parse_redis_url(server.url),
        ):
            with pytest.raises(RedisUnavailable, match="refuses the user or password"):
                await wrong.connect(0)


@pytest.mark.parametrize("password", ["", "s3cret"])
async def test_a_full_server_is_not_reported_as_a_wrong_password(
    tmp_path: Path, flavour: Flavour, password: str
) -> None:
    limit = ("maxclients 1",)
    with Server(tmp_path / "server", flavour, password=password, config=limit) as server:
        endpoint = parse_redis_url(server.url, password=password)
        server.client().close()
        first = await endpoint.connect(0)
        # The server sends "max number of clients reached", but its reset may arrive first.
        with pytest.raises(RedisUnavailable) as error:
            await endpoint.connect(0)
        assert "user or password" not in str(error.value)
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

        # With a wrong password, running connections stay and a restart is refused.
        secret.write_text("wrong")
        for process in stack.processes:
            process.kill9()
            process.spawn()
            wait_until(
                partial(logs_refused_login, process), "the log to give the reason", seconds=20
            )
            assert "s3cret" not in process.tail()
            assert not process.is_ready()
        # A rotated secret is read without a restart.
        secret.write_text("s3cret")
        for process in stack.processes:
            process.wait_until_ready()


def logs_refused_login(process: Process) -> bool:
    return "refuses the user or password" in process.tail()


async def test_server_with_an_untrusted_certificate_is_refused(tmp_path: Path) -> None:
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
