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

from busyapi.archive_cli.partitions import find_partitions
from busyapi.archive_cli.selection import print_error
from busyapi.audit.files import audit_folder
from busyapi.audit.patients import create_salt, digest_patient
from busyapi.audit.record import MAX_TEXT, AuditEntry, format_time
from busyapi.audit.writer import AuditWriter
from busyapi.errors import ArchiveError
from busyapi.usage_json import format_received_at


class NotRecorded(ArchiveError):
    """The export cannot be recorded in the audit trail."""


def record_before(
    options: argparse.Namespace, blocks: Iterator[list[bytes]]
) -> Iterator[list[bytes]]:
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
            entry = _make_entry(options, folder)
            AuditWriter(options.dir, partition, retention_days=0).append([entry])
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


def _make_entry(options: argparse.Namespace, folder: Path) -> AuditEntry:
    return AuditEntry(
        time=format_time(time.time()),
        action="export",
        resource=_describe_resource(options, folder)[:MAX_TEXT],
        name=f"os:{_user_name()}"[:MAX_TEXT],
        address=socket.gethostname(),
    )


def _describe_resource(options: argparse.Namespace, folder: Path) -> str:
    if getattr(options, "id", None) is not None:
        return f"usage/{options.id}"
    conditions = {}
    if options.since is not None:
        conditions["from"] = format_received_at(options.since)
    if options.until is not None:
        conditions["to"] = format_received_at(options.until)
    if options.patient is not None:
        create_salt(folder)
        conditions["patient"] = digest_patient(folder, options.patient)
    return "query?" + urlencode(conditions, safe=":")


def _user_name() -> str:
    # Not from the environment, which the user sets.
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user has no name
        return str(os.getuid())
