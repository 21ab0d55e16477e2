"""Measure `archive export`, `cat --patient`, `verify` and `lake` on an archive of realistic usages.

DuckDB writes the same columns from the same files, as one file and, as `busyapi lake` does, by day
and sorted by patient. `zstd -t` and `sha256sum` read the same files. Times are CPU, user and
system, of a process of its own.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from bench.archive_fill import fill_archive
from bench.cli import make_temporary_folder
from busyapi.argument_types import whole_number

DUCKDB = """
import sys, duckdb
archive, target, order, options = sys.argv[1:]
connection = duckdb.connect()
connection.execute("set timezone = 'UTC'")
connection.execute(f'''
copy (
    select id, "receivedAt"::timestamp as received_at,
        coalesce(
            epoch_ms(try_cast(usage->>'timestamp' as bigint)),
            try_cast(usage->>'timestamp' as timestamptz)::timestamp,
            try_strptime(
                left(usage->>'timestamp', 33),
                ['%a %b %d %Y %H:%M:%S GMT%z', '%a, %d %b %Y %H:%M:%S GMT']
            )::timestamp
        ) as device_time,
        usage->>'timestamp' as device_time_text, usage->>'patientId' as patient_id,
        usage->>'medication' as medication, tenant, writer, ((id - 1) % 2)::integer as partition,
        json_merge_patch(usage, '{{"patientId":null,"timestamp":null,"medication":null}}')::varchar
            as extra {', "receivedAt"::date as received_day' if options else ''}
    from read_ndjson(
        '{archive}/p*/*/usages-*.ndjson.zst',
        compression = 'zstd',
        columns = {{id: 'BIGINT', "receivedAt": 'VARCHAR', usage: 'JSON', writer: 'VARCHAR',
            tenant: 'VARCHAR'}}
    )
    {order}
) to '{target}' (format parquet, compression zstd {options})
''')
"""


def measure_cpu(command: list[str]) -> float:
    """Run a command, and return the seconds of CPU that it took."""
    before = os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=3600)
    after = os.times()
    used: float = after.children_user + after.children_system
    return used - before.children_user - before.children_system


def main() -> int:
    """Make the archive, measure, and print a line for each command."""
    parser = argparse.ArgumentParser(prog="python -m bench.archive", description=__doc__)
    parser.add_argument("--usages", type=whole_number(1000), default=4_000_000, metavar="N")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), metavar="DIR")  # noqa: S108
    options = parser.parse_args()
    with make_temporary_folder(options.folder) as folder:
        archive = folder / "archive"
        fill_archive(archive, options.usages)
        archive_bytes = sum(path.stat().st_size for path in archive.glob("p*/*/usages-*"))
        busyapi = [sys.executable, "-m", "busyapi", "archive"]
        at = ["--dir", str(archive)]
        target = folder / "busyapi.parquet"
        files = [str(path) for path in archive.glob("p*/*/usages-*")]
        duckdb = [sys.executable, "-c", DUCKDB, str(archive)]
        commands = {
            "export": [*busyapi, "export", *at, str(target)],
            "cat --patient": [*busyapi, "cat", *at, "--patient", "0"],
            "verify": [*busyapi, "verify", *at],
            "lake": [sys.executable, "-m", "busyapi", "lake", "--once", *at],
            "zstd -t": ["zstd", "-qt", *files],
            "sha256sum": ["sha256sum", *files],
            "DuckDB": [*duckdb, str(folder / "duckdb.parquet"), "", ""],
            "DuckDB by day and patient": [
                *duckdb,
                str(folder / "duckdb"),
                "order by received_at::date, patient_id",
                ", partition_by (received_day)",
            ],
        }
        for name, command in commands.items():
            try:
                seconds = measure_cpu(command)
            except subprocess.CalledProcessError:
                sys.stdout.write(f"{name}: failed\n")
                continue
            sys.stdout.write(f"{name}: {seconds:.2f} s, {seconds / options.usages * 1e6:.2f} µs\n")
        for path in folder.glob("*.parquet"):
            share = path.stat().st_size / archive_bytes
            sys.stdout.write(f"{path.name}: {share:.2f} of the archive's size\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
