"""Running a runbook's commands: on a cluster, or on the processes of this machine.

Each block is a script for bash. Programs that stand first in its PATH write down each
command that fails, for a pipe would hide it.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from testkit.ports import free_port
from testkit.processes import Stack
from testkit.servers import Server

ROOT = Path(__file__).parents[2]
BLOCK_SECONDS = 300
_FORWARD = re.compile(r"(port-forward \S+) (\d+)(?::(\d+))?")

NOTED = """#!/bin/bash
# Written down when it fails; a forwarded port is ended by the block itself.
case " $* " in *" port-forward "*) exec {program} "$@" ;; esac
{program} "$@"
code=$?
[ $code = 0 ] || echo "$code: {name} $*" >> "$FAILURES"
exit $code
"""

KUBECTL = """#!/bin/bash
# The commands of a runbook that have a meaning on one machine; the rest prints nothing.
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
    port-forward) exec /bin/sleep 30 ;;
    get) [ "$2" != secret ] || printf %s {password} | base64; exit 0 ;;
    *) exit 0 ;;
  esac
done
"""


@dataclass
class Result:
    """What a block printed, and which of its commands failed."""

    output: str
    failures: list[str]


class Shell:
    """A bash with programs of ours before the system's."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.folder = folder
        self.settings = settings
        self.ports: dict[str, int] = {}
        """Of a port on a page, the one here."""
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, name: str, script: str) -> None:
        """Put a program first in the PATH."""
        path = self.folder / name
        path.write_text(script)
        path.chmod(0o755)

    def note(self, name: str, program: str | Path) -> None:
        """Have a program's failures written down."""
        self.put(name, NOTED.format(program=program, name=name))

    def run(self, text: str) -> Result:
        """Run a block.

        Raises:
            TimeoutExpired: it does not end.
        """
        failures = self.folder / "failures"
        failures.write_text("")
        path = f"{self.folder}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", self.here(text)],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BLOCK_SECONDS,
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
            env={**os.environ, **self.settings, "PATH": path, "FAILURES": str(failures)},
        )
        return Result(done.stdout, failures.read_text().splitlines())

    def here(self, text: str) -> str:
        """Forward ports that are free here, in place of those on the page."""

        def forward(found: re.Match[str]) -> str:
            port = self.ports.setdefault(found[2], free_port())
            return f"{found[1]} {port}:{found[3] or found[2]}"

        text = _FORWARD.sub(forward, text)
        for said, port in self.ports.items():
            text = text.replace(f"localhost:{said}/", f"localhost:{port}/")
        return text


def on_cluster(folder: Path, kubectl: Path, helm: Path, kubeconfig: Path, namespace: str) -> Shell:
    """Return a shell for a release in a namespace."""
    shell = Shell(folder, {"KUBECONFIG": str(kubeconfig), "NAMESPACE": namespace, "P": "0"})
    shell.note("kubectl", kubectl)
    shell.note("helm", helm)
    shell.note("curl", shutil.which("curl") or "curl")
    return shell


class OnStack(Shell):
    """A shell in which kubectl means the processes of a stack on this machine."""

    def __init__(self, folder: Path, stack: Stack, server: Server, archive: Path) -> None:
        super().__init__(
            folder, {"NAMESPACE": "here", "P": "0", "BUSYAPI_ARCHIVE_DIR": str(archive)}
        )
        self.archive = archive
        self.ports = {"3000": stack.port, "9100": stack.flushers[0].port}
        stand_in = folder / "stand-in"
        self.put(
            "stand-in",
            KUBECTL.format(
                redis=server.port,
                flusher_log=stack.flushers[0].log,
                api_logs=" ".join(str(each.log) for each in stack.apis),
                redis_log=server.log,
                password=server.password,
            ),
        )
        self.note("kubectl", stand_in)
        self.note("curl", shutil.which("curl") or "curl")
        self.put("busyapi", f'#!/bin/sh\nexec {sys.executable} -m busyapi "$@"\n')
        # Nothing has to be waited for: the ports are there.
        self.put("sleep", "#!/bin/sh\n")

    def here(self, text: str) -> str:
        """Name this machine's archive as well."""
        return super().here(text.replace("/var/lib/busyapi/archive", str(self.archive)))
