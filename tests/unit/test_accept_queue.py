"""The kernel's count of connections that did not fit into the accept queue."""

from pathlib import Path

import pytest

from busyapi.telemetry import metric_defs_api
from busyapi.telemetry.accept_queue import AcceptQueue, read_overflows

NETSTAT = """\
TcpExt: SyncookiesSent ListenOverflows ListenDrops
TcpExt: 3 17 19
IpExt: InNoRoutes ListenOverflows
IpExt: 5 6
"""


def test_the_count_is_that_of_the_tcp_section(tmp_path: Path) -> None:
    path = tmp_path / "netstat"
    path.write_text(NETSTAT)
    assert read_overflows(path) == 17
    (family,) = AcceptQueue(metric_defs_api.ACCEPT_QUEUE_OVERFLOWS, path).collect()
    assert [(sample.name, sample.value) for sample in family.samples] == [
        ("busyapi_accept_queue_overflows_total", 17)
    ]


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "TcpExt: A B\n",
        "TcpExt: SyncookiesSent\nTcpExt: 3\n",
        "TcpExt: ListenOverflows\nTcpExt: x\n",
        "TcpExt: ListenOverflows\nTcpExt:\n",
        "\xff",
    ],
)
def test_without_a_count_of_the_kernel_there_is_no_series(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "netstat"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    assert read_overflows(path) is None
    assert list(AcceptQueue(metric_defs_api.ACCEPT_QUEUE_OVERFLOWS, path).collect()) == []


def test_this_kernel_has_the_count() -> None:
    assert read_overflows() is not None
