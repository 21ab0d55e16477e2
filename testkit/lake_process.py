"""`busyapi lake` as a process that Prometheus scrapes."""

from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path

from testkit.ports import reserve_port
from testkit.processes import Process

SOON = {"BUSYAPI_LAKE_INTERVAL": "0.2"}


class LakeProcess(Process):
    """`busyapi lake` of all partitions in a folder."""

    def __init__(self, folder: Path, archive: Path, settings: Mapping[str, str]) -> None:
        self._port = reserve_port()
        ports = {"BUSYAPI_LAKE_METRICS_PORT": str(self._port)}
        super().__init__(
            folder, "lake", ["lake", "--dir", str(archive)], {**SOON, **settings, **ports}
        )
        # It starts itself again by its command line.
        self.is_forked = False

    @property
    def scrape_port(self) -> int:
        """The port of /metrics."""
        return self._port

    def is_ready(self) -> bool:
        """Return whether it can be scraped, even if its catalog does not answer."""
        try:
            return self.read_metric("busyapi_build_info") == 1
        except (OSError, HTTPException):
            return False
