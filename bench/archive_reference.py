"""The same work on the same files by DuckDB, each as a program of its own."""

import sys
from pathlib import Path

_PROGRAM = """
import sys, duckdb
sql, = sys.argv[1:]
connection = duckdb.connect()
connection.execute("set timezone = 'UTC'")
print(connection.execute(sql).fetchall())
"""
_LINES = """
from read_ndjson(
    '{archive}/p*/*/usages-*.ndjson.zst',
    compression = 'zstd',
    columns = {{id: 'BIGINT', "receivedAt": 'VARCHAR', usage: 'JSON', writer: 'VARCHAR',
        tenant: 'VARCHAR'}}
)
"""
_EXPORT = """
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
            as extra
    {lines}
) to '{target}' (format parquet, compression zstd)
"""
_DAYS = """
select "receivedAt"[:10] as day, usage->>'medication' as medication, count(*)
{lines} group by all order by all
"""
_PATIENT = "select count(*) {lines} where usage->>'patientId' = '{patient}'"
_RANGE = """select count(*) {lines} where "receivedAt" >= '{since}' and "receivedAt" < '{until}'"""


_LAKE = "from read_parquet({files})"
_LAKE_PATIENT = "select count(*) {lines} where patient_id = '{patient}'"
_LAKE_DAYS = """
select received_at::date as day, medication, count(*) {lines} group by all order by all
"""


class DuckDb:
    """The commands for one archive."""

    def __init__(self, archive: Path) -> None:
        self._lines = _LINES.format(archive=archive)

    def export(self, target: Path) -> list[str]:
        """Write the columns of an export."""
        return self._run(_EXPORT, target=target)

    def count_patient(self, patient: str) -> list[str]:
        """Count the usages of a patient."""
        return self._run(_PATIENT, patient=patient)

    def count_range(self, since: str, until: str) -> list[str]:
        """Count the usages that were received in a time."""
        return self._run(_RANGE, since=since, until=until)

    def count_days(self) -> list[str]:
        """Count the usages of each medication on each day."""
        return self._run(_DAYS)

    def count_lake_patient(self, files: list[str], patient: str) -> list[str]:
        """Count the usages of a patient in data files of the lake."""
        return self._run(_LAKE_PATIENT, lines=_LAKE.format(files=files), patient=patient)

    def count_lake_days(self, files: list[str]) -> list[str]:
        """Count the usages of each medication on each day in data files of the lake."""
        return self._run(_LAKE_DAYS, lines=_LAKE.format(files=files))

    def _run(self, sql: str, **values: object) -> list[str]:
        text = sql.format(**{"lines": self._lines} | values).strip()
        return [sys.executable, "-c", _PROGRAM, text]
