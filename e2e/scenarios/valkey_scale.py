"""Change the number of bundled Valkey servers under load, and run several with TLS."""

import time
from collections.abc import Callable

from e2e.measure import Figures, require_short_outage
from e2e.release import Release
from e2e.report import Report
from e2e.scenarios import valkey_tls
from e2e.scenarios.faults import describe_failures
from e2e.scenarios.valkey_ha import (
    RATE,
    SERVERS,
    STEADY_SECONDS,
    disturb,
    kill_primary,
    make_values,
    skip_without_nodes,
    wait_until_complete,
)

UPGRADE_SECONDS = 30.0
"""Between one server and several, the only server restarts."""


def require_upgrade(figures: Figures) -> None:
    """Check the silence while the number of servers changes."""
    require_short_outage(figures, UPGRADE_SECONDS)


def change_servers(release: Release, report: Report) -> None:
    """Install one server, make it three, and one again."""
    with report.row("one Valkey server: installed") as row:
        if skip_without_nodes(release, row):
            return
        release.install(make_values(release, 1))
        release.wait_until_routed()
    with disturb(release, report, "one Valkey server becomes three", require_upgrade):
        release.upgrade({"valkey": {"replicas": SERVERS}})
    with report.prefixed("three Valkey servers that were one: "):
        kill_primary(release, report)
    with report.row("three Valkey servers become one") as row:
        with release.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            release.upgrade({"valkey": {"replicas": 1}})
            wait_until_complete(release, 1)
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        row.notes += [f"{row.figures.silence:.1f} s without a 201", *describe_failures(row.figures)]
        row.verdict = release.audit(failover=True)
        row.notes.append(f"{row.verdict.skipped} ids skipped")
        require_upgrade(row.figures)


def install_with_tls(release: Release, report: Report) -> None:
    """Install three servers with TLS between all of them."""
    with report.row("three Valkey servers with TLS: installed") as row:
        if skip_without_nodes(release, row):
            return
        values = make_values(release, SERVERS)
        release.install(values | {"valkey": values["valkey"] | {"tls": {"enabled": True}}})
        wait_until_complete(release)
        release.wait_until_routed()
        release.helm_test()
        row.verdict = release.audit()


def disturb_with_tls(release: Release, report: Report) -> None:
    """Rotate the certificate, and kill the primary."""
    with report.prefixed("three Valkey servers with TLS: "):
        valkey_tls.rotate(release, report)
        kill_primary(release, report)


TLS_SCENARIOS: tuple[Callable[[Release, Report], None], ...] = (install_with_tls, disturb_with_tls)
