"""The users that the chart gives the bundled Valkey, on real servers.

Each role must be able to do its work and nothing besides. And a server must have all of its data
after a restart: it replays its log as the default user, and silently drops what that user may not
do (valkey#3983, redis#14541).
"""

import contextlib
import re
from hashlib import sha256
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from testkit.api_client import USAGE, refusal, send, stored
from testkit.chart.rendering import CHART, ROOT, render
from testkit.load import Load
from testkit.processes import Stack
from testkit.servers import Flavour, Server
from testkit.waiting import wait_until
from tests.chart.test_secrets import secret

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


def release() -> dict[str, str]:
    """Return what the chart's Secret holds."""
    return secret(render(), "busyapi-valkey")


def serving(folder: Path, flavour: Flavour, acl: str) -> Server:
    """Make a server with the chart's users, and one for the test itself."""
    if flavour == "redis":  # 7.0 does not know the command, and refuses the whole file
        acl = acl.replace(" +waitaof", "")
    lines = (*acl.splitlines(), OPERATOR)
    return Server(folder / "server", flavour, username="operator", password="operator", acl=lines)


def stack_on(server: Server, folder: Path, passwords: dict[str, str]) -> Stack:
    """Make a stack whose processes log in as their roles."""
    stack = Stack(folder / "stack", server)
    for role, processes in (("api", stack.apis), ("flusher", stack.flushers)):
        for each in processes:
            each.environment |= {
                "BUSYAPI_REDIS_USERNAME": role,
                "BUSYAPI_REDIS_PASSWORD": passwords[f"{role}-password"],
            }
    return stack


def ids_after_a_crash(folder: Path, flavour: Flavour, made: dict[str, str], acl: str) -> list[int]:
    """Post while the flusher sleeps, kill the server, start it; give the ids before and after."""
    with serving(folder, flavour, acl) as server, stack_on(server, folder, made) as stack:
        with Load(stack.port, requests=50) as load:
            load.finish()
        stack.wait_until_archived()
        stack.flushers[0].pause()
        ids = [stored(send(stack.port, USAGE)) for _ in range(5)]
        server.kill9()
        server.start()
        stack.flushers[0].resume()
        wait_until(lambda: send(stack.port, USAGE).status == 201, "the API to go on")
        ids.append(stored(send(stack.port, USAGE)))
        stack.wait_until_archived()
        stack.flushers[0].restart()
        assert denied(server) == set()
        return ids


def denied(server: Server) -> set[tuple[str, str]]:
    """Return which commands the server refused to which role, for want of a right."""
    rows = server.command("ACL", "LOG")
    return {(row["username"], row["object"]) for row in rows if row["username"] in ROLES}


def test_what_is_not_yet_archived_is_there_after_a_crash(tmp_path: Path, flavour: Flavour) -> None:
    made = release()
    ids = ids_after_a_crash(tmp_path, flavour, made, made["users.acl"])
    assert ids == [51, 52, 53, 54, 55, 57]


def test_a_default_user_without_rights_loses_it(tmp_path: Path) -> None:
    """On Debian's Redis; the Valkey of the wheel is newer than the mend."""
    made = release()
    assert DEFAULT in made["users.acl"].splitlines()
    acl = made["users.acl"].replace(DEFAULT, "user default off")
    *_, last = ids_after_a_crash(tmp_path, "redis", made, acl)
    assert last > 1_000_000, "the flusher found it empty, and jumped"


def test_a_right_that_is_missing_is_seen(tmp_path: Path) -> None:
    made = release()
    acl = made["users.acl"].replace(" +exists", "")
    with serving(tmp_path, "valkey", acl) as server:
        stack = stack_on(server, tmp_path, made)
        with contextlib.closing(stack):
            stack.flushers[0].spawn()
            wait_until(
                lambda: ("flusher", "exists") in denied(server),
                "a command to be denied",
                seconds=30,
            )


def test_with_the_rights_of_the_release_before_only_posts_with_a_key_are_refused(
    tmp_path: Path,
) -> None:
    """As for the seconds of an upgrade in which Valkey still has the users of 0.2.0."""
    made = release()
    acl = "\n".join(
        f"user {role} on #{sha256(made[f'{role}-password'].encode()).hexdigest()} {rights}"
        for role, rights in RIGHTS_OF_0_2_0.items()
    )
    acl += f"\n{DEFAULT}\n"
    with serving(tmp_path, "valkey", acl) as server, stack_on(server, tmp_path, made) as stack:
        lost = stack.apis[0].metric("busyapi_lane_failures_total")
        for key in range(5):
            said = refusal(send(stack.port, USAGE, idempotency_key=f"key-{key}"), "no")
            assert "Idempotency-Key" in said["detail"]
            stored(send(stack.port, USAGE))
        assert stack.apis[0].metric("busyapi_lane_failures_total") == lost
        stack.wait_until_archived()


def test_the_rights_asked_for_an_external_redis_are_those_of_both_roles() -> None:
    documented = set(re.findall(r"^    (\+evalsha .*)$", README, re.MULTILINE)[0].split())
    lines = [each for each in release()["users.acl"].splitlines() if " on #" in each]
    granted = {word for line in lines for word in line.split() if word.startswith("+")}
    assert documented | {"+waitaof"} == granted


def test_every_command_of_the_service_is_granted() -> None:
    """In scripts, and as the tuples that go over the wire."""
    granted = set(re.findall(r"\+([a-z]+)", release()["users.acl"]))
    named = re.findall(r"redis\.p?call\('([A-Z]+)'", sources("*.lua"))
    named += re.findall(r'\(\s*"([A-Z]+)",', sources("*.py"))
    found = {each.lower() for each in named}
    assert {"xadd", "hlen", "waitaof", "pttl"} <= found
    # Of Sentinels and of a cluster's nodes, before a login, and in the tier that waits.
    assert found - granted <= {"sentinel", "cluster", "auth", "wait"}


def sources(pattern: str) -> str:
    """Return what speaks to Redis."""
    return "".join(each.read_text() for each in sorted(STREAM.glob(pattern)))


def test_each_role_may_do_what_keys_need(tmp_path: Path) -> None:
    made = release()
    with (
        serving(tmp_path, "valkey", made["users.acl"]) as server,
        stack_on(server, tmp_path, made) as stack,
    ):
        for replayed in (None, "true"):
            answer = send(stack.port, USAGE, idempotency_key="k")
            assert stored(answer) == 1
            assert answer.headers.get("idempotency-replayed") == replayed
        (flusher,) = stack.flushers
        wait_until(lambda: flusher.metric("busyapi_idempotency_keys") == 1, "the figure")
        stack.wait_until_archived()
        wait_until(lambda: not server.command("XLEN", "busyapi:{0}:keyed"), "it to be trimmed")
        # All that a flusher does with keys after the loss of the server.
        for each in stack.processes:
            each.stop()
        server.command("FLUSHALL")
        stack.start()
        assert stored(send(stack.port, USAGE, idempotency_key="k")) == 1


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_do_nothing_besides_its_work(tmp_path: Path, role: str) -> None:
    made = release()
    with serving(tmp_path, "valkey", made["users.acl"]) as server:
        client = redis.Redis(
            port=server.port,
            username=role,
            password=made[f"{role}-password"],
            retry=Retry(NoBackoff(), 0),
        )
        for command in REFUSED:
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command)  # type: ignore[no-untyped-call]
        assert client.get("busyapi:{0}:seq") is None
        client.close()
        anybody = redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0))
        with pytest.raises(redis.exceptions.AuthenticationError):
            anybody.get("busyapi:{0}:seq")
        anybody.close()
