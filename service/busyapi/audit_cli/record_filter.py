"""Which records `audit cat` prints."""

from dataclasses import dataclass

from busyapi.audit.record import SealedRecord


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
            and (self.usage is None or resource == f"usage/{self.usage}")
            and (self.patient is None or self._is_about_patient(resource))
        )

    def _is_about_patient(self, resource: str) -> bool:
        conditions = resource.partition("?")[2].split("&")
        return bool(self.patient) and f"patient={self.patient}" in conditions
