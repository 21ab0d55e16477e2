"""Which cluster: that of KUBECONFIG, or the one that ../shared/cluster starts on this machine."""

import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "cluster" / "cluster"
SHARED_HOME = Path(os.environ.get("CLUSTER_HOME", "/var/lib/busyapi-cluster"))
UP_SECONDS = 600

HELP = """no cluster: KUBECONFIG names none, and there is no {shared}.
    KUBECONFIG=~/.kube/config E2E_LOAD_IMAGE="kind load image-archive --name busyapi" make e2e
runs on any cluster whose ingress controller answers on 127.0.0.1, port E2E_INGRESS_PORT (8080). An
archive of the image is given to the command in E2E_LOAD_IMAGE; without it nothing is built, and the
cluster must have the images already. With a Gateway called gateway in namespace ingress, on the
same port, HTTPRoutes are tried as well.
"""


class NoCluster(Exception):
    """There is none to run on; the message says what to do."""


@dataclass(frozen=True)
class Target:
    """A cluster, and what this run may do to the machine below it."""

    kubeconfig: Path
    load: tuple[str, ...]
    """The command that loads an image archive; none when images are there already."""
    shared: Path | None
    """The program that runs the cluster, when it is the one of this machine."""
    port: int = int(os.environ.get("E2E_INGRESS_PORT", "8080"))
    """Of the ingress controller, on 127.0.0.1."""

    def cluster(self, *arguments: str | Path) -> None:
        """Have the shared cluster's program do something."""
        if self.shared is None:
            raise NoCluster(f"only ../shared/cluster can do {arguments}")
        subprocess.run([self.shared, *arguments], check=True, timeout=UP_SECONDS)

    def pid(self, process: str) -> int | None:
        """Give a process of the shared cluster; None on any other."""
        path = SHARED_HOME / "run" / f"{process}.pid"
        return int(path.read_text()) if self.shared and path.exists() else None


def find() -> Target:
    """Find the cluster, starting it if need be.

    Raises:
        NoCluster: there is none.
    """
    named = os.environ.get("KUBECONFIG")
    load = tuple(shlex.split(os.environ.get("E2E_LOAD_IMAGE", "")))
    if named:
        kubeconfig = Path(named).expanduser()
        ours = SHARED.exists() and kubeconfig == SHARED_HOME / "kubeconfig"
        return Target(kubeconfig, load or _load(ours), SHARED if ours else None)
    if not SHARED.exists():
        raise NoCluster(HELP.format(shared=SHARED))
    subprocess.run([SHARED, "up"], check=True, timeout=UP_SECONDS)
    return Target(SHARED_HOME / "kubeconfig", load or _load(ours=True), SHARED)


def _load(ours: bool) -> tuple[str, ...]:  # noqa: FBT001
    return (str(SHARED), "load") if ours else ()
