"""Switch a node of the cluster off, where its kubelet is a process of this machine.

A machine that is off answers nothing, closes no connection and loses what is in its memory. So its
network is cut first, and only then are its processes killed: otherwise the kernel would
close each connection properly, and each peer would notice immediately.
"""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e.target import Target

DAEMONS = ("kubelet", "containerd")
COMMAND_SECONDS = 20


def can_switch_off(target: Target, node: str) -> bool:
    """Return whether the daemons of a node are processes of this machine."""
    return all(target.pid(f"{node}-{daemon}") for daemon in DAEMONS)


@contextmanager
def switch_off_node(target: Target, node: str) -> Iterator[None]:
    """Switch a node off, and on again at the end: its daemons run, and none of its pods."""
    daemons = [pid for daemon in DAEMONS if (pid := target.pid(f"{node}-{daemon}"))]
    for pid in daemons:
        os.kill(pid, signal.SIGSTOP)
    try:
        pids = list_pod_processes(node)
        for link in {link for pid in pids if (link := find_link(pid))}:
            run_ip("link", "set", link, "down")
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        yield
    finally:
        for pid in daemons:
            os.kill(pid, signal.SIGCONT)


def list_pod_processes(node: str) -> list[int]:
    """Return the processes of all pods of a node: they are in its cgroup."""
    pids = []
    for path in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            cgroups = path.read_text()
        except OSError:
            continue
        if re.search(rf":/{re.escape(node)}/", cgroups):
            pids.append(int(path.parent.name))
    return pids


def find_link(pid: int) -> str:
    """Return this machine's end of a pod's network link, or nothing for the host's network."""
    try:
        namespace = Path(f"/proc/{pid}/ns/net").readlink()
    except FileNotFoundError:  # a probe, which has ended
        return ""
    if namespace == Path("/proc/self/ns/net").readlink():
        return ""
    inside = run_ip("-o", "link", "show", "eth0", namespace_of=pid)
    index = re.search(r"eth0@if(\d+):", inside)
    outside = run_ip("-o", "link")
    link = re.search(rf"^{index[1]}: ([^@:]+)", outside, re.MULTILINE) if index else None
    return link[1] if link else ""


def run_ip(*arguments: str, namespace_of: int | None = None) -> str:
    """Run `ip`, in the network namespace of a process on request."""
    enter = ("nsenter", "-t", str(namespace_of), "-n") if namespace_of else ()
    return subprocess.run(
        [*enter, "ip", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_SECONDS,
    ).stdout
