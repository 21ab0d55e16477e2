"""Samples refused requests for the audit trail, so that a flood of them cannot fill its disk.

Refusals of one network with the same status and credential become one entry per interval, with
their number and the lowest and the highest id that they asked for. Each interval has a limited
number of entries; refusals beyond it are only counted. Refused credentials have places of their
own: requests without one, which anybody can send, cannot hide them.
"""

from collections import Counter
from collections.abc import Hashable
from dataclasses import replace

from busyapi.audit.record import AuditEntry

INTERVAL_SECONDS = 5.0
MAX_ENTRIES = 25
"""Entries per interval and process with a name, and as many without: under any flood at most 5 KB
per second, with request ids of 128 characters and names of 100."""


class RefusalSampler:
    """The refusals since the last `take`."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, AuditEntry] = {}
        self._counts: dict[Hashable, int] = {}
        self._ids: dict[Hashable, tuple[int, int]] = {}
        """The lowest and the highest id of a source that asked for usages."""
        self._places: Counter[bool] = Counter()
        """How many entries have a name, and how many have none."""
        self._dropped = 0

    def add(self, source: Hashable, entry: AuditEntry, usage: int | None) -> None:
        """Add a refusal; the first one of a source is the sample of the others.

        All refusals of a source have an id, or none has.
        """
        if source in self._entries:
            self._counts[source] += 1
        elif self._places[has_name := bool(entry.name)] < MAX_ENTRIES:
            self._entries[source], self._counts[source] = entry, 1
            self._places[has_name] += 1
        else:
            self._dropped += 1
            return
        if usage is not None:
            lowest, highest = self._ids.get(source, (usage, usage))
            self._ids[source] = min(lowest, usage), max(highest, usage)

    def take(self) -> tuple[list[AuditEntry], int]:
        """Return the entries, and the number of refusals that are in none; forget them."""
        entries = [self._summarize(source, entry) for source, entry in self._entries.items()]
        dropped, self._dropped = self._dropped, 0
        self._entries, self._counts, self._ids = {}, {}, {}
        self._places.clear()
        return entries, dropped

    def _summarize(self, source: Hashable, entry: AuditEntry) -> AuditEntry:
        entry = replace(entry, count=self._counts[source])
        if source not in self._ids:
            return entry
        lowest, highest = self._ids[source]
        last = f"usage/{highest}" if highest != lowest else ""
        return replace(entry, resource=f"usage/{lowest}", last=last)
