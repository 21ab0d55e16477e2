"""Trails of audit records for tests, and a process that writes one until it is killed."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from busyapi.audit.files import audit_folder, list_files
from busyapi.audit.record import AuditEntry, format_time
from busyapi.audit.verify import TrailReport, verify_trail
from busyapi.audit.writer import MAX_FILE_BYTES, AuditWriter


def make_entry(usage: int = 1, **changes: Any) -> AuditEntry:
    """Return the entry of a read."""
    members = {
        "time": format_time(time.time()),
        "action": "read",
        "resource": f"usage/{usage}",
        "name": "clinic-a",
        "address": "10.0.0.7",
        "status": 200,
        "request_id": f"r-{usage}",
    }
    return AuditEntry(**{**members, **changes})


def open_writer(root: Path, *, days: int = 0, max_file_bytes: int = MAX_FILE_BYTES) -> AuditWriter:
    """Return a writer of partition 0."""
    return AuditWriter(root, 0, days, max_file_bytes)


def write_reads(root: Path, first: int, last: int, **options: Any) -> None:
    """Record reads of these usages, one by one."""
    writer = open_writer(root, **options)
    for usage in range(first, last + 1):
        writer.append([make_entry(usage)])
    writer.close()


def read_records(root: Path, partition: int = 0) -> list[dict[str, Any]]:
    """Return all lines of a trail that are JSON, in the order of its files."""
    files = list_files(audit_folder(root, partition), partition)
    lines = (line for file in files for line in file.path.read_bytes().split(b"\n"))
    return [json.loads(line) for line in lines if line.endswith(b'"}')]


def read_resources(root: Path, partition: int = 0) -> list[str]:
    """Return the resources of the records of clients and commands."""
    return [record["resource"] for record in read_records(root, partition) if "resource" in record]


def verify(root: Path, partition: int = 0) -> TrailReport:
    """Verify a trail."""
    return verify_trail(audit_folder(root, partition), partition)


def list_paths(root: Path) -> list[Path]:
    """Return the files of partition 0's trail, oldest first."""
    return [file.path for file in list_files(audit_folder(root, 0), 0)]


def _write_until_killed(root: Path, acknowledged: Path, first: int, number: int) -> None:
    writer = open_writer(root, days=1, max_file_bytes=1500)
    with acknowledged.open("a") as file:
        for usage in range(first, first + number):
            writer.append([make_entry(usage)])
            file.write(f"{usage}\n")
            file.flush()
        writer.delete_expired()
        writer.close()


if __name__ == "__main__":
    _write_until_killed(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
