"""As what a Valkey pod starts: the scripts of the chart, with the answers of other pods given.

The programs valkey-cli and valkey-server are replaced by scripts, because a test machine has no
names of pods. The end-to-end scenarios run the same scripts with real servers.
"""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from testkit.chart.rendering import CHART

SCRIPTS = CHART / "files" / "valkey"
NAME = "busyapi-valkey"
ZERO, ONE, TWO = (f"{NAME}-{number}" for number in range(3))
CLI = """\
#!/bin/sh
while [ $# -gt 0 ]; do
  case $1 in
    -h) host=$2; shift ;; -p) port=$2; shift ;; --user) shift ;; -*) ;;
    *) break ;;
  esac
  shift
done
[ -z "$LOG" ] || echo "$host $*" >> "$LOG"
cat "$ANSWERS/$host-$1" 2>/dev/null
"""
SERVER = '#!/bin/sh\necho "STARTED $*"\ncat "$1"\n'
# Each call is a second later, so that no test waits.
DATE = '#!/bin/sh\nn=$(($(cat "$CLOCK") + 1))\necho $n | tee "$CLOCK"\n'
WAIT_SECONDS = 2.0


class Pod:
    """A pod with its volume, and what the others answer."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self.folder = name, folder
        for part in ("data", "run", "etc", "bin", "answers", "logins"):
            (folder / part).mkdir()
        for program, text in (("valkey-cli", CLI), ("valkey-server", SERVER), ("date", DATE)):
            path = folder / "bin" / program
            path.write_text(text)
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        (folder / "clock").write_text("0\n")
        (folder / "etc" / "valkey.conf").write_text("appendonly yes\n")
        (folder / "etc" / "sentinel.conf").write_text("port 26379\n")
        for user in ("pod", "replication", "sentinel"):
            (folder / "logins" / f"{user}-password").write_text('p"w\\d')
        for script in SCRIPTS.glob("*.sh"):
            (folder / "etc" / script.name).write_text(self._localize(script.read_text()))

    def _localize(self, text: str) -> str:
        places = {
            "/etc/valkey-logins": "logins",
            "/etc/valkey": "etc",
            "/data": "data",
            "/run/valkey": "run",
        }
        for path, part in places.items():
            text = text.replace(path, str(self.folder / part))
        return text

    def keep_data(self) -> None:
        """Write data to the volume."""
        (self.folder / "data" / "appendonlydir").mkdir()
        (self.folder / "data" / "appendonlydir" / "appendonly.aof.manifest").touch()

    def keep_vote(self, epoch: int, primary: str) -> None:
        """Write the file of a Sentinel to the volume."""
        self.sentinel_conf.write_text(
            f"sentinel monitor busyapi {primary} 6379 2\nsentinel config-epoch busyapi {epoch}\n"
            f"sentinel leader-epoch busyapi {epoch + 1}\nsentinel current-epoch {epoch + 2}\n"
            f"sentinel known-replica busyapi 10.0.0.9 6379\n"
        )

    @property
    def sentinel_conf(self) -> Path:
        return self.folder / "data" / "sentinel.conf"

    def answer(self, host: str, command: str, reply: str) -> None:
        """Let another pod answer a command."""
        (self.folder / "answers" / f"{host}-{command}").write_text(f"{reply}\n")

    def answer_primary(self, host: str, epoch: int, primary: str) -> None:
        """Let the Sentinel of another pod name the primary."""
        self.answer(
            host, "sentinel", f"name\nbusyapi\nip\n{primary}\nport\n6379\nconfig-epoch\n{epoch}"
        )

    def run(self, script: str) -> str:
        """Run a script until it has started a server, or for a while; return what it printed."""
        variables = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "HOSTNAME": self.name,
            "NAME": NAME,
            "REPLICAS": "3",
            "PREFIX": "busyapi",
            "TLS": "",
            "ANSWERS": str(self.folder / "answers"),
            "CLOCK": str(self.folder / "clock"),
            "LOG": str(self.folder / "log"),
        }
        process = subprocess.Popen(
            ["sh", str(self.folder / "etc" / script)],
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            return process.communicate(timeout=WAIT_SECONDS)[0]
        except subprocess.TimeoutExpired:
            process.terminate()
            return process.communicate(timeout=10)[0]

    def start(self) -> str:
        """Run start.sh; return the primary it follows, the server itself, or "" if it waits."""
        self.output = self.run("start.sh")
        if "STARTED" not in self.output:
            return ""
        lines = [line for line in self.output.splitlines() if line.startswith("replicaof ")]
        return lines[0].split()[1] if lines else self.name


@pytest.fixture
def zero(tmp_path: Path) -> Pod:
    return Pod(tmp_path, ZERO)


@pytest.fixture
def one(tmp_path: Path) -> Pod:
    return Pod(tmp_path, ONE)


def test_restarted_pod_follows_the_primary_that_the_sentinels_name(zero: Pod) -> None:
    zero.keep_data()
    zero.keep_vote(3, ZERO)
    zero.answer_primary(ONE, 4, ONE)
    zero.answer_primary(TWO, 4, ONE)
    assert zero.start() == ONE


def test_larger_epoch_wins_over_more_answers(one: Pod) -> None:
    one.keep_data()
    one.keep_vote(5, ONE)
    one.answer_primary(ZERO, 4, ZERO)
    one.answer_primary(TWO, 4, ZERO)
    assert one.start() == ONE


def test_without_a_majority_no_server_starts(zero: Pod) -> None:
    """The server was down during a failover, and is the first one back."""
    zero.keep_data()
    zero.keep_vote(3, ZERO)
    assert zero.start() == ""
    assert "1 of 3 Sentinels" in zero.output


def test_primary_that_restarts_lets_another_one_take_over(zero: Pod) -> None:
    zero.keep_data()
    zero.keep_vote(3, ZERO)
    for other in (ONE, TWO):
        zero.answer_primary(other, 3, ZERO)
        zero.answer(other, "dbsize", "7")
    (zero.folder / "bin" / "date").write_text("#!/bin/sh\necho 5\n")
    assert zero.start() == ""
    assert "another one may take over" in zero.output
    assert "start-as-primary" not in zero.output


def test_primary_that_restarts_is_the_primary_if_no_other_takes_over(zero: Pod) -> None:
    zero.keep_data()
    zero.keep_vote(3, ZERO)
    for other in (ONE, TWO):
        zero.answer_primary(other, 3, ZERO)
        zero.answer(other, "dbsize", "7")
    (zero.folder / "clock").write_text("0\n")
    (zero.folder / "bin" / "date").write_text(DATE.replace("+ 1", "+ 6"))
    assert zero.start() == ZERO


def test_only_server_of_a_release_that_gets_two_more_is_the_primary_at_once(zero: Pod) -> None:
    zero.keep_data()
    for other in (ONE, TWO):
        zero.answer_primary(other, 0, ZERO)
        zero.answer(other, "dbsize", "0")
    assert zero.start() == ZERO


@pytest.mark.parametrize("reply", ["7", "LOADING Redis is loading", ""])
def test_primary_that_lost_its_volume_waits(zero: Pod, reply: str) -> None:
    for other in (ONE, TWO):
        zero.answer_primary(other, 0, ZERO)
    zero.answer(ONE, "dbsize", "0")
    zero.answer(TWO, "dbsize", reply)
    assert zero.start() == ""
    assert "its volume is empty" in zero.output


def test_first_installation_begins_with_server_0(zero: Pod) -> None:
    for other in (ONE, TWO):
        zero.answer_primary(other, 0, ZERO)
        zero.answer(other, "dbsize", "0")
    assert zero.start() == ZERO


def test_another_server_without_data_is_never_the_primary(one: Pod) -> None:
    for other in (ZERO, TWO):
        one.answer_primary(other, 2, ONE)
        one.answer(other, "dbsize", "0")
    assert one.start() == ""


def test_replica_without_data_starts_as_a_replica(one: Pod) -> None:
    for other in (ZERO, TWO):
        one.answer_primary(other, 0, ZERO)
    assert one.start() == ZERO


def test_operator_can_make_a_server_the_primary_once(one: Pod) -> None:
    flag = one.folder / "data" / "start-as-primary"
    flag.touch()
    assert one.start() == ONE
    assert not flag.exists()
    assert one.start() == ""


def test_password_is_quoted_and_name_announced(one: Pod) -> None:
    one.keep_vote(0, ZERO)
    one.answer_primary(ZERO, 0, ZERO)
    assert one.start() == ZERO
    assert 'masterauth "p\\"w\\\\d"' in one.output
    assert f"replica-announce-ip {ONE}" in one.output


def test_sentinel_keeps_epochs_and_primary_and_knows_all_others(one: Pod) -> None:
    one.keep_vote(5, TWO)
    text = one.run("sentinel.sh")
    first = {line for line in text.splitlines() if line.startswith("sentinel ")}
    assert f"sentinel monitor busyapi {TWO} 6379 2" in first
    assert {
        "sentinel config-epoch busyapi 5",
        "sentinel leader-epoch busyapi 6",
        "sentinel current-epoch 7",
    } <= first
    replicas = {line.split()[3] for line in first if "known-replica" in line}
    others = {line.split()[3] for line in first if "known-sentinel" in line}
    assert (replicas, others) == ({ZERO, ONE}, {ZERO, TWO})
    one.sentinel_conf.unlink()
    one.answer_primary(ZERO, 5, TWO)
    # With its volume it lost nothing that the others do not know, and is the same Sentinel.
    again = {line for line in one.run("sentinel.sh").splitlines() if line.startswith("sentinel ")}
    assert {line for line in again ^ first if "epoch" not in line} == set()


def test_sentinel_of_the_first_installation_names_server_0(one: Pod) -> None:
    (one.folder / "bin" / "sleep").write_text("#!/bin/sh\n")
    (one.folder / "bin" / "sleep").chmod(0o755)
    assert f"sentinel monitor busyapi {ZERO} 6379 2" in one.run("sentinel.sh")


def test_only_server_starts_with_the_data_of_a_primary(zero: Pod) -> None:
    assert "STARTED" in zero.run("single.sh")
    zero.keep_vote(4, ZERO)
    assert "STARTED" in zero.run("single.sh")


def test_only_server_does_not_start_with_the_data_of_a_replica(zero: Pod) -> None:
    zero.keep_vote(4, ONE)
    output = zero.run("single.sh")
    assert "STARTED" not in output
    assert f"a replica of {ONE}" in output
    (zero.folder / "data" / "start-as-primary").touch()
    assert "STARTED" in zero.run("single.sh")
    assert not zero.sentinel_conf.exists()


RECORD = '{{"confirming": ["{}:6379"], "server_id": "a-b"}}'


@pytest.mark.parametrize(
    ("role", "record", "is_ready"),
    [
        (f"master\n10\n{ZERO}\n6379\n10", "", True),
        (f"slave\n{ZERO}\n6379\nconnected\n10", RECORD.format(ONE), True),
        (f"slave\n{ZERO}\n6379\nconnected\n10", "", True),
        (f"slave\n{ZERO}\n6379\nconnected\n10", RECORD.format(TWO), False),
        (f"slave\n{ZERO}\n6379\nsync\n10", RECORD.format(ONE), False),
    ],
)
def test_replica_is_ready_when_it_confirms(
    one: Pod, role: str, record: str, *, is_ready: bool
) -> None:
    one.answer(ONE, "ping", "PONG")
    one.answer(ONE, "role", role)
    one.answer(ONE, "get", record)
    one.answer(ZERO, "ping", "PONG")
    assert ("NOT READY" not in run_ready(one)) == is_ready


def run_ready(pod: Pod) -> str:
    path = pod.folder / "etc" / "check.sh"
    path.write_text(f"sh {pod.folder}/etc/ready.sh || echo NOT READY\n")
    return pod.run("check.sh")


def test_server_that_loads_is_not_ready(one: Pod) -> None:
    one.answer(ONE, "ping", "LOADING Redis is loading the dataset in memory")
    assert "NOT READY" in run_ready(one)


def test_primary_asks_for_a_handover_until_it_is_a_replica(one: Pod) -> None:
    one.answer(ONE, "role", f"master\n10\n{ZERO}\n6379\n10")
    (one.folder / "bin" / "date").write_text(DATE.replace("+ 1", "+ 8"))
    one.run("stop.sh")
    calls = (one.folder / "log").read_text().splitlines()
    request = f"{ONE} set busyapi:{{0}}:handover {ONE}:6379 EX 60"
    assert request in calls
    assert (one.folder / "run" / "stopped").exists()


def test_former_primary_stays_until_all_others_confirm(one: Pod) -> None:
    """Each pause is the next step of a hand-over."""
    steps = one.folder / "steps"
    steps.mkdir()
    record = '{"confirming": ["%s:6379", "%s:6379"], "refusal": "%s"}'
    for number, (command, reply) in enumerate(
        (
            ("role", f"slave\n{ZERO}\n6379\nconnected\n10"),
            ("get", record % (ONE, ONE, "")),
            ("get", record % (ONE, TWO, "a Sentinel is promoting another server")),
            ("get", record % (ONE, TWO, "")),
        )
    ):
        (steps / f"{number}-{command}").write_text(f"{reply}\n")
    sleep = one.folder / "bin" / "sleep"
    sleep.write_text(
        f'#!/bin/sh\nfor step in {steps}/*; do [ -e "$step" ] || exit 0\n'
        f'mv "$step" {one.folder}/answers/{ONE}-${{step##*-}}; exit; done\n'
    )
    sleep.chmod(0o755)
    one.answer(ONE, "role", f"master\n10\n{ZERO}\n6379\n10")
    (one.folder / "clock").write_text("100\n")
    # The record of its own time as the primary.
    one.answer(ONE, "get", record % (ZERO, TWO, ""))
    one.run("stop.sh")
    assert not list(steps.iterdir())
    calls = (one.folder / "log").read_text().splitlines()
    assert calls.count(f"{ONE} get busyapi:{{0}}:replicas") == 4
    assert (one.folder / "run" / "stopped").exists()


@pytest.mark.parametrize(
    ("role", "stay"),
    [
        (f"slave\n{ZERO}\n6379\nconnected\n10", ""),
        ("master\n10", ""),
        (f"master\n10\n{ZERO}\n6379\n10", f"{ONE}:6379"),
    ],
)
def test_server_stops_without_a_handover(one: Pod, role: str, stay: str) -> None:
    """A replica, a primary without replicas, or the one that the release keeps."""
    one.answer(ONE, "role", role)
    one.answer(ONE, "get", stay)
    one.run("stop.sh")
    assert " set " not in (one.folder / "log").read_text()
