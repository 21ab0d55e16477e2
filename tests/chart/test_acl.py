"""Tests of the bundled Valkey's ACL on real servers.

Each role has the rights that it needs and no others. A server has all of its data after a restart:
it replays its append-only file as the default user, and silently drops commands that this user may
not run (valkey#3983, redis#14541).
"""

import contextlib
import re
from hashlib import sha256
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from testkit.api_client import USAGE, check_stored, check_unavailable, send
from testkit.chart.rendering import CHART, ROOT, render
from testkit.load import Load
from testkit.processes import Stack
from testkit.servers import Flavour, Server
from testkit.waiting import wait_until
from tests.chart.test_secrets import read_secret

OPERATOR = "user operator on >operator ~* &* +@all"
DEFAULT = "user default off ~* &* +@all"
ROLES = ("api", "flusher")
RIGHTS_OF_0_2_0 = {
    "api": "resetchannels ~busyapi:* -@all +evalsha +script|load +info +config|get +get +set +hget"
    " +hmget +hdel +incrby +xadd +xrange",
    "flusher": "resetchannels ~busyapi:* -@all +evalsha +script|load +info +config|get +get +set"
    " +pexpire +exists +hget +hmget +hset +hdel +hexists +xread +xtrim",
}
README = (CHART / "README.md").read_text()
STREAM = ROOT / "service" / "busyapi" / "stream"

REFUSED = (
    ("FLUSHALL",),
    ("KEYS", "*"),
    ("CONFIG", "SET", "appendonly", "no"),
    ("EVAL", "return 1", "0"),
    ("DEL", "busyapi:{0}:seq"),
    ("ACL", "LIST"),
    ("SHUTDOWN",),
    ("GET", "others"),
)


def read_chart_secret() -> dict[str, str]:
    """Return the data of the chart's Secret."""
    return read_secret(render(), "busyapi-valkey")


def make_server(folder: Path, flavour: Flavour, acl: str) -> Server:
    """Return a server with the chart's users and an operator for the test."""
    if flavour == "redis":  # 7.0 does not have the command and rejects the whole file
        acl = acl.replace(" +waitaof", "")
    lines = (*acl.splitlines(), OPERATOR)
    return Server(folder / "server", flavour, username="operator", password="operator", acl=lines)


def make_stack(server: Server, folder: Path, passwords: dict[str, str]) -> Stack:
    """Return a stack whose processes log in as their roles."""
    stack = Stack(folder / "stack", server)
    for role, processes in (("api", stack.apis), ("flusher", stack.flushers)):
        for process in processes:
            process.environment |= {
                "BUSYAPI_REDIS_USERNAME": role,
                "BUSYAPI_REDIS_PASSWORD": passwords[f"{role}-password"],
            }
    return stack


def post_and_crash(
    folder: Path, flavour: Flavour, credentials: dict[str, str], acl: str
) -> list[int]:
    """Post while the flusher is paused, restart the server after a kill, and return all ids."""
    with (
        make_server(folder, flavour, acl) as server,
        make_stack(server, folder, credentials) as stack,
    ):
        with Load(stack.port, requests=50) as load:
            load.finish()
        stack.wait_until_archived()
        stack.flushers[0].pause()
        ids = [check_stored(send(stack.port, USAGE)) for _ in range(5)]
        server.kill9()
        server.start()
        stack.flushers[0].resume()
        wait_until(lambda: send(stack.port, USAGE).status == 201, "the API to continue")
        ids.append(check_stored(send(stack.port, USAGE)))
        stack.wait_until_archived()
        stack.flushers[0].restart()
        assert find_denied_commands(server) == set()
        return ids


def find_denied_commands(server: Server) -> set[tuple[str, str]]:
    """Return the role and command of each refusal for a missing right."""
    rows = server.command("ACL", "LOG")
    return {(row["username"], row["object"]) for row in rows if row["username"] in ROLES}


def test_unarchived_usages_survive_a_crash(tmp_path: Path, flavour: Flavour) -> None:
    credentials = read_chart_secret()
    ids = post_and_crash(tmp_path, flavour, credentials, credentials["users.acl"])
    assert ids == [51, 52, 53, 54, 55, 57]


def test_default_user_without_rights_loses_usages(tmp_path: Path) -> None:
    """Use Debian's Redis, because the Valkey of the wheel is newer than the fix."""
    credentials = read_chart_secret()
    assert DEFAULT in credentials["users.acl"].splitlines()
    acl = credentials["users.acl"].replace(DEFAULT, "user default off")
    *_, last = post_and_crash(tmp_path, "redis", credentials, acl)
    assert last > 1_000_000, "Redis lost usages, so the flusher skipped ids"


def test_missing_right_is_detected(tmp_path: Path) -> None:
    credentials = read_chart_secret()
    acl = credentials["users.acl"].replace(" +exists", "")
    with make_server(tmp_path, "valkey", acl) as server:
        stack = make_stack(server, tmp_path, credentials)
        with contextlib.closing(stack):
            stack.flushers[0].spawn()
            wait_until(
                lambda: ("flusher", "exists") in find_denied_commands(server),
                "a command to be denied",
                seconds=30,
            )


def test_rights_of_0_2_0_refuse_only_posts_with_a_key(
    tmp_path: Path,
) -> None:
    """Cover the seconds of an upgrade in which Valkey still has the users of 0.2.0."""
    credentials = read_chart_secret()
    acl = "\n".join(
        f"user {role} on #{sha256(credentials[f'{role}-password'].encode()).hexdigest()} {rights}"
        for role, rights in RIGHTS_OF_0_2_0.items()
    )
    acl += f"\n{DEFAULT}\n"
    with (
        make_server(tmp_path, "valkey", acl) as server,
        make_stack(server, tmp_path, credentials) as stack,
    ):
        failures = stack.apis[0].read_metric("busyapi_committer_failures_total")
        for key in range(5):
            problem = check_unavailable(send(stack.port, USAGE, idempotency_key=f"key-{key}"), "no")
            assert "Idempotency-Key" in problem["detail"]
            check_stored(send(stack.port, USAGE))
        assert stack.apis[0].read_metric("busyapi_committer_failures_total") == failures
        stack.wait_until_archived()


def read_documented_rights() -> str:
    """Return the rights that the README asks for on an external Redis."""
    (rights,) = re.findall(r"^    (\+evalsha .*)$", README, re.MULTILINE)
    return str(rights)


def test_documented_rights_for_an_external_redis_are_those_of_both_roles() -> None:
    documented = set(read_documented_rights().split())
    lines = [line for line in read_chart_secret()["users.acl"].splitlines() if " on #" in line]
    granted = {word for line in lines for word in line.split() if word.startswith("+")}
    assert documented | {"+waitaof"} == granted


def test_user_of_an_external_redis_gains_nothing_from_the_servers_passwords(
    tmp_path: Path, flavour: Flavour
) -> None:
    """Set up users as the README says. `+config|get` reveals every password in the settings."""
    (replication_rights,) = re.findall(r"`masteruser`, `([^`]+)`", README)
    acl = (
        DEFAULT,
        OPERATOR,
        f"user busyapi on >busyapi resetchannels ~busyapi:* -@all {read_documented_rights()}",
        f"user replica on >of-replicas resetchannels {replication_rights}",
    )

    def make(name: str, primary: Server | None = None) -> Server:
        return Server(
            tmp_path / name,
            flavour,
            username="operator",
            password="operator",
            acl=acl,
            # The last lines of a setting win: these replace the login of `operator`.
            config=("masteruser replica", "masterauth of-replicas"),
            replica_of=primary,
        )

    primary = make("primary")
    copy = make("copy", primary)
    with primary, copy:
        assert copy.replication()["master_link_status"] == "up"
        as_busyapi = connect(primary, "busyapi", "busyapi")
        passwords = [as_busyapi.config_get(name) for name in ("requirepass", "masterauth")]
        assert passwords == [{"requirepass": ""}, {"masterauth": "of-replicas"}]
        as_busyapi.close()
        as_replica = connect(primary, "replica", "of-replicas")
        for command in (*REFUSED, ("GET", "busyapi:{0}:seq"), ("ACL", "WHOAMI")):
            with pytest.raises(redis.exceptions.NoPermissionError):
                as_replica.execute_command(*command)  # type: ignore[no-untyped-call]
        as_replica.close()


def test_user_without_config_get_reads_no_password_and_needs_trust(
    tmp_path: Path, flavour: Flavour
) -> None:
    rights = read_documented_rights().replace(" +config|get", "")
    rights += " +waitaof" if flavour == "valkey" else ""
    server = Server(
        tmp_path / "server",
        flavour,
        username="operator",
        password="operator",
        acl=(DEFAULT, OPERATOR, f"user busyapi on >b resetchannels ~busyapi:* -@all {rights}"),
        config=("requirepass of-default", "masterauth of-replicas"),
    )
    settings = {
        "BUSYAPI_REDIS_USERNAME": "busyapi",
        "BUSYAPI_REDIS_PASSWORD": "b",
        "BUSYAPI_REDIS_TRUST": "appendfsync",
    }
    with server, Stack(tmp_path / "stack", server, settings=settings) as stack:
        assert server.client().config_get("masterauth") == {"masterauth": "of-replicas"}
        as_busyapi = connect(server, "busyapi", "b")
        with pytest.raises(redis.exceptions.NoPermissionError):
            as_busyapi.config_get("masterauth")
        as_busyapi.close()
        with Load(stack.port, requests=50, keys=True) as load:
            load.finish()
        stack.wait_until_archived()
        for process in stack.processes:
            process.stop()
        stack.start()
        check_stored(send(stack.port, USAGE))
        denied = {row["object"] for row in server.command("ACL", "LOG")}
        assert denied - {"client|setinfo"} == {"config|get"}  # redis-py sends the other one


def connect(server: Server, username: str, password: str) -> redis.Redis:
    """Return a client that is logged in as a user and does not retry."""
    return redis.Redis(
        port=server.port,
        username=username,
        password=password,
        decode_responses=True,
        retry=Retry(NoBackoff(), 0),
    )


def test_every_command_of_the_service_is_granted() -> None:
    """Commands are in scripts, and in tuples that are sent to Redis."""
    granted = set(re.findall(r"\+([a-z]+)", read_chart_secret()["users.acl"]))
    names = re.findall(r"redis\.p?call\('([A-Z]+)'", read_sources("*.lua"))
    names += re.findall(r'\(\s*"([A-Z]+)",', read_sources("*.py"))
    commands = {name.lower() for name in names}
    assert {"xadd", "hlen", "waitaof", "pttl"} <= commands
    # For Sentinels and their words, cluster nodes, the login, and the tier `replicated`.
    assert commands - granted <= {
        *("sentinel", "replicas", "coordinated", "cluster", "auth"),
        *("wait", "failover", "client"),
    }


def read_sources(pattern: str) -> str:
    """Return the source of the modules that send commands to Redis."""
    return "".join(path.read_text() for path in sorted(STREAM.glob(pattern)))


def test_each_role_has_the_rights_that_idempotency_keys_need(tmp_path: Path) -> None:
    credentials = read_chart_secret()
    with (
        make_server(tmp_path, "valkey", credentials["users.acl"]) as server,
        make_stack(server, tmp_path, credentials) as stack,
    ):
        for replayed in (None, "true"):
            reply = send(stack.port, USAGE, idempotency_key="k")
            assert check_stored(reply) == 1
            assert reply.headers.get("idempotency-replayed") == replayed
        (flusher,) = stack.flushers
        wait_until(lambda: flusher.read_metric("busyapi_idempotency_keys") == 1, "the metric")
        stack.wait_until_archived()
        wait_until(
            lambda: not server.command("XLEN", "busyapi:{0}:keyed"), "the keys to be trimmed"
        )
        # Everything that a flusher does with keys after the server lost its data.
        for process in stack.processes:
            process.stop()
        server.command("FLUSHALL")
        stack.start()
        assert check_stored(send(stack.port, USAGE, idempotency_key="k")) == 1


@pytest.mark.parametrize("role", ROLES)
def test_role_is_refused_all_other_commands(tmp_path: Path, role: str) -> None:
    credentials = read_chart_secret()
    with make_server(tmp_path, "valkey", credentials["users.acl"]) as server:
        client = connect(server, role, credentials[f"{role}-password"])
        for command in REFUSED:
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command)  # type: ignore[no-untyped-call]
        assert client.get("busyapi:{0}:seq") is None
        client.close()
        anonymous = redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0))
        with pytest.raises(redis.exceptions.AuthenticationError):
            anonymous.get("busyapi:{0}:seq")
        anonymous.close()
