"""The cluster of a run: that of KUBECONFIG, or one that the program in E2E_CLUSTER starts."""

import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROGRAM = os.environ.get("E2E_CLUSTER", "")
"""The program that runs a cluster on this machine; README.md says what it must do."""
HOME = Path(os.environ.get("CLUSTER_HOME", "/var/lib/busyapi-cluster"))
UP_SECONDS = 600

HELP = """There is no cluster. Set KUBECONFIG, for example:
    KUBECONFIG=~/.kube/config E2E_LOAD_IMAGE="kind load image-archive --name busyapi" make e2e
Any cluster can be used whose ingress controller answers on 127.0.0.1, port E2E_INGRESS_PORT (8080).
The command in E2E_LOAD_IMAGE gets the path of an image archive. Without it nothing is built, and
the cluster must have the images already. HTTPRoutes are tested too if namespace ingress has a
Gateway called gateway on the same port. See e2e/README.md.
"""


class NoCluster(Exception):
    """The run has no cluster. The message says what to do."""


@dataclass(frozen=True)
class Target:
    """A cluster, and the program that controls its machine."""

    kubeconfig: Path
    load_command: tuple[str, ...]
    """The command that loads an image archive; empty if the cluster has the images."""
    program: Path | None
    """The program that runs the cluster, if it is on this machine."""
    port: int = int(os.environ.get("E2E_INGRESS_PORT", "8080"))
    """The port of the ingress controller on 127.0.0.1."""
    tls_port: int = int(os.environ.get("E2E_INGRESS_TLS_PORT", "8443"))
    """Its port for TLS."""

    def cluster(self, *arguments: str | Path) -> None:
        """Run a command of the program that runs the cluster."""
        if self.program is None:
            raise NoCluster(f"only the program in E2E_CLUSTER can run {arguments}")
        subprocess.run([self.program, *arguments], check=True, timeout=UP_SECONDS)

    def pid(self, process: str) -> int | None:
        """Return the id of a process of the cluster on this machine; None on any other."""
        path = HOME / "run" / f"{process}.pid"
        return int(path.read_text()) if self.program and path.exists() else None


def find() -> Target:
    """Find the cluster, or start it.

    Raises:
        NoCluster: There is no cluster and no program to start one.
    """
    named = os.environ.get("KUBECONFIG")
    load = tuple(shlex.split(os.environ.get("E2E_LOAD_IMAGE", "")))
    if named:
        kubeconfig = Path(named).expanduser()
        local = Path(PROGRAM) if PROGRAM and kubeconfig == HOME / "kubeconfig" else None
        return Target(kubeconfig, load or _load_command(local), local)
    if not PROGRAM:
        raise NoCluster(HELP)
    program = Path(PROGRAM)
    subprocess.run([program, "up"], check=True, timeout=UP_SECONDS)
    return Target(HOME / "kubeconfig", load or _load_command(program), program)


def _load_command(program: Path | None) -> tuple[str, ...]:
    return (str(program), "load") if program else ()
