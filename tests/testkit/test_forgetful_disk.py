from pathlib import Path

import pytest

from testkit.forgetful_disk import ForgetfulDisk
from testkit.servers import Flavour, Server


@pytest.mark.parametrize(("appendfsync", "kept"), [("always", "1"), ("no", None)])
def test_power_cut_loses_what_was_not_synced(
    tmp_path: Path, flavour: Flavour, appendfsync: str, kept: str | None
) -> None:
    server = Server(tmp_path / "server", flavour, config=[f"appendfsync {appendfsync}"])
    disk = ForgetfulDisk(server)
    with server:
        server.client().set("a", "1")
        assert (disk.cut_power() > 0) == (kept is None)
        server.start()
        assert server.client().get("a") == kept
