import platform
from pathlib import Path

import pytest

from perf.machine import describe_machine, find_file_system, parse_cpu_model, parse_memory_gib

MOUNTS = """\
/dev/vda / ext4 rw 0 0
tmpfs /tmp tmpfs rw 0 0
/dev/vdb /tmp/disk xfs rw 0 0
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [("/var/tmp/x", "ext4"), ("/tmp", "tmpfs"), ("/tmp/a/b", "tmpfs"), ("/tmp/disk/a", "xfs")],  # noqa: S108
)
def test_the_deepest_mount_above_a_folder_is_its_file_system(folder: str, kind: str) -> None:
    assert find_file_system(MOUNTS, Path(folder)) == kind


def test_the_cpu_is_named_or_else_its_architecture() -> None:
    assert parse_cpu_model("processor\t: 0\nmodel name\t: Fast 9000\n") == "Fast 9000"
    assert parse_cpu_model("processor\t: 0\nCPU part\t: 0xd0c\n") == platform.machine()


def test_memory_is_in_gib() -> None:
    assert parse_memory_gib("MemTotal:       25165824 kB\nMemFree: 1 kB\n") == 24.0


def test_this_machine_can_be_read(tmp_path: Path) -> None:
    this_machine = describe_machine(tmp_path)
    assert this_machine.cores > 0
    assert this_machine.memory_gib > 0
