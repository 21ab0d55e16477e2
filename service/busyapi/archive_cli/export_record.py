"""Records in the audit trail what a command prints or exports, before it does.

The record is in the trail of the partition, to which its flusher writes too. An archive that cannot
be written to is read all the same, with a warning, unless BUSYAPI_AUDIT is `required`.
"""

import argparse
import os
import pwd
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

from busyapi.archive_cli.increment import format_position
from busyapi.archive_cli.partitions import find_partitions
from busyapi.archive_cli.selection import SelectedLines, print_error
from busyapi.audit.files import audit_folder
from busyapi.audit.patients import create_salt, digest_patient
from busyapi.audit.record import MAX_TEXT, AuditEntry, format_time
from busyapi.audit.writer import AuditWriter
from busyapi.errors import ArchiveError
from busyapi.usage_json import format_received_at

PATIENTS_IN_RECORD = 3
"""How many digests a record has room for, beside the other conditions."""


class NotRecorded(ArchiveError):
    """The export cannot be recorded in the audit trail."""


def record_before(
    options: argparse.Namespace, blocks: Iterator[SelectedLines]
) -> Iterator[SelectedLines]:
    """Yield these blocks of lines, after the export is recorded."""
    record_export(options)
    yield from blocks


def record_export(options: argparse.Namespace) -> None:
    """Record an export in each partition that it may read, as BUSYAPI_AUDIT says.

    `auto` records where a trail exists already, `required` and `background` everywhere.

    Raises:
        NotRecorded: the export is not recorded, and `required` forbids that.
    """
    if options.audit_mode == "off":
        return
    for partition in _find_partitions(options):
        folder = audit_folder(options.dir, partition)
        if options.audit_mode == "auto" and not folder.is_dir():
            continue
        try:
            texts = _describe_resources(options, folder, partition)
            entries = [_make_entry(text) for text in texts]
            AuditWriter(options.dir, partition, retention_days=0).append(entries)
        except (ArchiveError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            if options.audit_mode == "required":
                raise NotRecorded(
                    "nothing is read, because the audit trail cannot be written:"
                    f" {folder}: {reason}. With BUSYAPI_AUDIT=required, each export is recorded"
                    " first"
                ) from None
            print_error(f"this is not recorded in the audit trail: {folder}: {reason}")


def _find_partitions(options: argparse.Namespace) -> list[int]:
    readable = [status.partition for status in find_partitions(options.dir, options.only)]
    partitions = [partition.identity for partition in readable if partition]
    usage_id = getattr(options, "id", None)
    if usage_id is None:
        return [identity.partition for identity in partitions]
    return [
        identity.partition for identity in partitions if identity.find_seq(usage_id) is not None
    ]


def _make_entry(resource: str) -> AuditEntry:
    return AuditEntry(
        time=format_time(time.time()),
        action="export",
        resource=resource[:MAX_TEXT],
        name=f"os:{_user_name()}"[:MAX_TEXT],
        address=socket.gethostname(),
    )


def _describe_resources(options: argparse.Namespace, folder: Path, partition: int) -> list[str]:
    """Return what is read: one text, or more if one cannot hold all patients."""
    if getattr(options, "id", None) is not None:
        return [f"usage/{options.id}"]
    query = getattr(options, "query", None)
    if query is not None:  # its text may have patient ids
        create_salt(folder)
    conditions: list[tuple[str, str]] = [
        (name, format_received_at(value))
        for name, value in (
            ("from", options.since),
            ("to", options.until),
            ("device-from", options.device_since),
            ("device-to", options.device_until),
        )
        if value is not None
    ]
    if (after := getattr(options, "after_id", None)) is not None:
        # Only that of this partition: all of them could take the place of the patients.
        own = {number: last for number, last in after.items() if number == partition}
        conditions.append(("after-id", format_position(own)))
    if query is not None:
        conditions.append(("sql", digest_patient(folder, query)))
    medications = [("medication", name) for name in options.medication or ()]
    patients = options.patient or []
    if patients:
        create_salt(folder)
    digests = [("patient", digest_patient(folder, patient)) for patient in patients]
    return [
        # The patients come before what may be cut off.
        "query?" + urlencode([*conditions, *group, *medications], safe=":")
        for group in _make_groups(digests)
    ]


def _make_groups(digests: list[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    starts = range(0, len(digests), PATIENTS_IN_RECORD)
    return [digests[start : start + PATIENTS_IN_RECORD] for start in starts] or [[]]


def _user_name() -> str:
    # Not from the environment, which the user sets.
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user has no name
        return str(os.getuid())
