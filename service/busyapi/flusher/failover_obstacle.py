"""Why no failover would start, or starts, for the metric and the log."""

import structlog

from busyapi.flusher.replica_servers import ServerReport
from busyapi.flusher.retry import LastingProblem

log = structlog.get_logger()

MIN_BLOCKED_SECONDS = 3.0
"""How long a failover may be impossible before that is logged: longer than a Sentinel takes to
notice a change."""


class FailoverObstacle:
    """Why no failover is possible, and what of it was logged."""

    def __init__(self) -> None:
        self.reason = ""
        """"" if a failover is possible, or none is expected."""
        self._blocking = LastingProblem(MIN_BLOCKED_SECONDS)
        self._logged = ""

    def note_report(self, report: ServerReport) -> None:
        """Note what the Sentinels say while the primary works.

        Without Sentinels no failover is expected; the nodes of a cluster are not asked.
        """
        obstacle = report.view.failover_obstacle if report.view else "no Sentinel answers"
        if report.mode != "sentinel":
            obstacle = ""
        if obstacle and obstacle != self.reason:
            log.warning("failover_impossible", detail=obstacle)
        self.reason = obstacle

    def note_blocked(self, reason: str) -> None:
        """Note why no failover starts while the primary is down, "" if one does."""
        self.reason = reason
        if self._blocking.has_lasted(reason) and reason != self._logged:
            log.warning("failover_blocked", detail=reason)
            self._logged = reason

    def end_blocked(self) -> None:
        """Note that the primary works."""
        self._blocking.has_lasted("")
        self._logged = ""
