"""Run the commands of runbooks on a cluster or on the processes of this machine.

Each block is a bash script. Programs that come first in its PATH record each command that fails,
because a pipe would hide the failure.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from testkit.ports import reserve_port
from testkit.processes import Stack
from testkit.servers import Server

ROOT = Path(__file__).parents[2]
BLOCK_SECONDS = 300
_FORWARD = re.compile(r"(port-forward \S+) (\d+)(?::(\d+))?")

RECORDER = """#!/bin/bash
# Records a failure. The block itself ends a port-forward. Only a restarted pod has a previous log.
case " $* " in *" port-forward "* | *" --previous "*) exec {program} "$@" ;; esac
{program} "$@"
code=$?
[ $code = 0 ] || echo "$code: {name} $*" >> "$FAILURES"
exit $code
"""

KUBECTL = """#!/bin/bash
# The commands of runbooks that make sense on one machine. Others print nothing.
while [ $# -gt 0 ]; do
  case "$1" in
    -n) shift 2 ;;
    exec) shift; pod=$1; [ "$pod" != -it ] || {{ shift; pod=$1; }}; shift 2
      [[ $pod == *-valkey-* ]] && {{ shift; exec redis-cli -p {redis} "$@"; }}
      exec "$@" ;;
    logs)
      case "$*" in
        *flusher*) exec cat {flusher_log} ;;
        *component=api*) exec cat {api_logs} ;;
        *) exec cat {redis_log} ;;
      esac ;;
    cp) exec cp "$2" "${{3#*:}}" ;;
    port-forward) exec /bin/sleep 30 ;;
    get) [ "$2" != secret ] || printf %s {password} | base64; exit 0 ;;
    *) exit 0 ;;
  esac
done
"""


@dataclass
class Result:
    """The output of a block, and its failed commands."""

    output: str
    failures: list[str]


class Shell:
    """A bash whose PATH begins with recording programs."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.folder = folder
        self.settings = {"WORK": str(folder), **settings}
        self.ports: dict[str, int] = {}
        """Port on a page -> port on this machine."""
        folder.mkdir(parents=True, exist_ok=True)

    def add_program(self, name: str, script: str) -> None:
        """Add a program at the start of the PATH."""
        path = self.folder / name
        path.write_text(script)
        path.chmod(0o755)

    def record_failures(self, name: str, program: str | Path) -> None:
        """Record the failures of a program."""
        self.add_program(name, RECORDER.format(program=program, name=name))

    def run(self, text: str) -> Result:
        """Run a block.

        Raises:
            TimeoutExpired: The block does not end in time.
        """
        failures = self.folder / "failures"
        failures.write_text("")
        path = f"{self.folder}:{os.environ['PATH']}"
        process = subprocess.run(
            ["bash", "-c", self.localize(text)],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BLOCK_SECONDS,
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
            env={**os.environ, **self.settings, "PATH": path, "FAILURES": str(failures)},
        )
        return Result(process.stdout, failures.read_text().splitlines())

    def localize(self, text: str) -> str:
        """Replace the ports of the page by free ports of this machine."""

        def forward(match: re.Match[str]) -> str:
            port = self.ports.setdefault(match[2], reserve_port())
            return f"{match[1]} {port}:{match[3] or match[2]}"

        text = _FORWARD.sub(forward, text)
        for page_port, port in self.ports.items():
            text = text.replace(f"localhost:{page_port}/", f"localhost:{port}/")
        return text


def on_cluster(folder: Path, kubectl: Path, helm: Path, kubeconfig: Path, namespace: str) -> Shell:
    """Return a shell for a release in a namespace."""
    shell = Shell(folder, {"KUBECONFIG": str(kubeconfig), "NAMESPACE": namespace, "P": "0"})
    shell.record_failures("kubectl", kubectl)
    shell.record_failures("helm", helm)
    for name in ("curl", "openssl"):
        shell.record_failures(name, shutil.which(name) or name)
    return shell


class StackShell(Shell):
    """A shell in which kubectl means the processes of a stack on this machine."""

    def __init__(self, folder: Path, stack: Stack, server: Server, archive: Path) -> None:
        super().__init__(
            folder, {"NAMESPACE": "here", "P": "0", "BUSYAPI_ARCHIVE_DIR": str(archive)}
        )
        self.archive = archive
        self.ports = {
            "3000": stack.port,
            "9090": stack.apis[0].metrics_port,
            "9100": stack.flushers[0].port,
        }
        stand_in = folder / "stand-in"
        self.add_program(
            "stand-in",
            KUBECTL.format(
                redis=server.port,
                flusher_log=stack.flushers[0].log,
                api_logs=" ".join(str(api.log) for api in stack.apis),
                redis_log=server.log,
                password=server.password,
            ),
        )
        self.record_failures("kubectl", stand_in)
        self.record_failures("curl", shutil.which("curl") or "curl")
        self.add_program("busyapi", f'#!/bin/sh\nexec {sys.executable} -m busyapi "$@"\n')
        # The ports are already open, so there is nothing to wait for.
        self.add_program("sleep", "#!/bin/sh\n")

    def localize(self, text: str) -> str:
        """Replace the ports, and the paths of the archive and its volume."""
        text = text.replace("/var/lib/busyapi/archive", str(self.archive))
        return super().localize(text.replace("/var/lib/busyapi", str(self.archive.parent)))
