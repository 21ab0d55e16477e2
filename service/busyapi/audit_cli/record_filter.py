"""Which records `audit cat` prints."""

from dataclasses import dataclass
from typing import Any

from busyapi.audit.record import SealedRecord
from busyapi.ids import MAX_ID

MAX_DIGITS = len(str(MAX_ID))


@dataclass(frozen=True, kw_only=True)
class RecordFilter:
    """The conditions that a record must meet; None: any."""

    since: str | None = None
    until: str | None = None
    name: str | None = None
    action: str | None = None
    usage: int | None = None
    patient: str | None = None
    """The digest of a patient id; "": the trail names no patients, so nothing matches."""

    def matches(self, record: SealedRecord) -> bool:
        """Return whether a record meets all conditions."""
        members = record.members
        # Times have a fixed form, so their order is that of the texts.
        time = str(members.get("time", ""))
        resource = str(members.get("resource", ""))
        return (
            (self.since is None or time >= self.since)
            and (self.until is None or time < self.until)
            and (self.name is None or members.get("name") == self.name)
            and (self.action is None or record.action == self.action)
            and (self.usage is None or self._is_about_usage(members))
            and (self.patient is None or self._is_about_patient(resource))
        )

    def _is_about_usage(self, members: dict[str, Any]) -> bool:
        """Return whether a record names the usage, or a range of ids with it."""
        lowest = parse_usage_id(members.get("resource"))
        highest = parse_usage_id(members.get("last")) or lowest
        return bool(self.usage and lowest and highest and lowest <= self.usage <= highest)

    def _is_about_patient(self, resource: str) -> bool:
        conditions = resource.partition("?")[2].split("&")
        return bool(self.patient) and f"patient={self.patient}" in conditions


def parse_usage_id(text: object) -> int | None:
    """Return the id in a resource; None if it is not `usage/<id>`."""
    digits = text.removeprefix("usage/") if isinstance(text, str) else ""
    return int(digits) if digits.isdecimal() and len(digits) <= MAX_DIGITS else None
