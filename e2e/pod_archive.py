"""Copy the archive out of the flushers' pods, for the history checker."""

import io
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from e2e.kube import Kube, wait_for
from testkit.archive_reader import Archive, read_archive

FOLDER = "/var/lib/busyapi/archive"
PORT = 9100


def read_gauge(text: str, name: str) -> float:
    """Return the value of the only sample with this name, with or without labels."""
    for line in text.splitlines():
        if line.startswith((f"{name} ", f"{name}{{")):
            return float(line.rpartition(" ")[2])
    raise ValueError(f"no {name} in the scrape")


def count_backlog(kube: Kube) -> int:
    """Return the number of usages that are issued and not archived, over all partitions.

    It includes flushers that are not ready, because one that cannot write is not ready.
    """
    scrapes = [kube.get(pod.metadata.name, PORT, "/metrics") for pod in kube.pods("flusher")]
    return sum(
        int(read_gauge(scrape, "busyapi_issued_seq") - read_gauge(scrape, "busyapi_archived_seq"))
        for scrape in scrapes
    )


def wait_until_flushed(kube: Kube, highest: dict[int, int], seconds: float = 60) -> None:
    """Wait until each partition is archived up to its highest answered seq, without a backlog.

    A flusher only reports the issued seqs that it has read, so an empty backlog is not enough.
    """

    def is_flushed() -> bool:
        pods = kube.list_ready_pods("flusher")
        last_seqs = {
            int(pod.metadata.name.rpartition("-")[2]): read_archived_seq(kube, pod) for pod in pods
        }
        return (
            all(last_seqs.get(p, 0) >= seq for p, seq in highest.items())
            and count_backlog(kube) == 0
        )

    wait_for(is_flushed, f"the flushers to reach {highest}", seconds)


def read_archived_seq(kube: Kube, pod: Any) -> int:
    """Return the last seq that a flusher has in its archive."""
    return int(read_gauge(kube.get(pod.metadata.name, PORT, "/metrics"), "busyapi_archived_seq"))


def read(kube: Kube) -> Archive:
    """Copy every flusher's files into one folder and read them."""
    with tempfile.TemporaryDirectory() as folder:
        for pod in kube.list_ready_pods("flusher"):
            copy(kube, pod.metadata.name, Path(folder))
        return read_archive(Path(folder))


def copy(kube: Kube, pod: str, into: Path) -> None:
    """Copy one flusher's files."""
    packed = kube.run(pod, "tar", "-C", FOLDER, "-cf", "-", ".")
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        tar.extractall(into, filter="data")


def verify(kube: Kube) -> None:
    """Run `busyapi archive verify` on every volume.

    Raises:
        ExecFailed: It found a problem.
    """
    names = [pod.metadata.name for pod in kube.list_ready_pods("flusher")]
    for name in names:
        # A volume has one partition, with the number of its pod.
        only = ["--partition", name.rpartition("-")[2]] if len(names) > 1 else []
        kube.run(name, "busyapi", "archive", "verify", "--dir", FOLDER, *only)
