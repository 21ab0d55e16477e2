"""The table's schema: the columns of an export, its days, its order and its properties."""

import pyarrow as pa
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.sorting import SortField, SortOrder
from pyiceberg.transforms import DayTransform, IdentityTransform
from pyiceberg.types import (
    IntegerType,
    LongType,
    NestedField,
    PrimitiveType,
    StringType,
    TimestamptzType,
)

from busyapi.archive_cli.columns import SCHEMA_KEY, SCHEMA_VERSION, make_schema
from busyapi.archive_cli.parsed_lines import TEXT, TIME

LAKE_TIME = pa.timestamp("us", tz="UTC")
"""The only unit of time that Iceberg knows."""

_TYPES: dict[pa.DataType, tuple[PrimitiveType, pa.DataType]] = {
    pa.int64(): (LongType(), pa.int64()),
    pa.int32(): (IntegerType(), pa.int32()),
    TEXT: (StringType(), TEXT),
    TIME: (TimestamptzType(), LAKE_TIME),
}
_EXPORT = make_schema()
_FIRST_PARTITION_FIELD = 1000

SCHEMA = Schema(
    *(
        NestedField(number, field.name, _TYPES[field.type][0], required=not field.nullable)
        for number, field in enumerate(_EXPORT, 1)
    )
)
FILE_SCHEMA = pa.schema(
    [
        pa.field(
            field.name,
            _TYPES[field.type][1],
            nullable=field.nullable,
            # The id of the Iceberg field: readers find a column by it, not by its name.
            metadata={"PARQUET:field_id": str(number)},
        )
        for number, field in enumerate(_EXPORT, 1)
    ]
)
"""The Arrow schema of a data file."""


def _id_of(column: str) -> int:
    return SCHEMA.find_field(column).field_id


DAYS = PartitionSpec(
    PartitionField(_id_of("received_at"), _FIRST_PARTITION_FIELD, DayTransform(), "received_day")
)
ORDER = SortOrder(SortField(_id_of("patient_id"), IdentityTransform()))
PROPERTIES = {
    SCHEMA_KEY: SCHEMA_VERSION,
    "commit.manifest-merge.enabled": "true",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
    # A device's time may be beyond the year 9999, for which Python has no type.
    "write.metadata.metrics.column.device_time": "counts",
    "write.parquet.compression-codec": "zstd",
}


def to_file_schema(batches: list[pa.RecordBatch]) -> pa.Table:
    """Return the rows of an export's batches as a data file has them."""
    return pa.Table.from_batches(batches, _EXPORT).cast(FILE_SCHEMA)
