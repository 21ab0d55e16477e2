"""The table in its catalog: opening it, and commits that exclude each other.

Every commit names the snapshot that it follows, and the catalog refuses it if another process has
committed meanwhile. Then the table is loaded again. What was written is committed to the newer
snapshot only if that leaves it right: for new usages, if no other process has taken them; for a
compaction, if all files that it replaces are still there, without deleted rows.

No data file is deleted here, not even after a refusal: those that are in no snapshot are left to a
sweep.
"""

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NoSuchTableError,
    TableAlreadyExistsError,
    ValidationException,
)
from pyiceberg.expressions import AlwaysTrue, BooleanExpression
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import TableUpdate

from busyapi.archive.fsync import make_folder
from busyapi.failpoints import failpoint
from busyapi.lake.newest import check_newest, list_stored
from busyapi.lake.positions import Positions, WrongTable, encode_positions, read_positions
from busyapi.lake.schema import DAYS, ORDER, PROPERTIES, SCHEMA

CATALOG_NAME = "busyapi"
"""pyiceberg reads further properties, such as credentials, from PYICEBERG_CATALOG__BUSYAPI__…"""
COMMIT_TRIES = 10
MAX_RETRY_SECONDS = 1.0
MAX_UNCOMMITTED_SECONDS = 3600.0
"""Older files are not committed: a sweep, which deletes only much older ones, never meets them."""


class LakeConfig(NamedTuple):
    """Where the table is."""

    warehouse: str
    """A folder or a URI, below which new tables are created, or a REST catalog's name for that."""
    catalog: str
    """The URI of an SQL database, or of a REST catalog; empty: SQLite in the warehouse."""
    table: str
    """The table's namespace and name."""


def open_catalog(config: LakeConfig) -> Catalog:
    """Connect to the catalog; a local warehouse is created."""
    uri, warehouse = config.catalog, config.warehouse
    is_rest = uri.startswith(("http://", "https://"))
    # A REST catalog may have a name for its warehouse.
    if "://" not in warehouse and (warehouse.startswith("/") or not is_rest):
        folder = Path(warehouse).absolute()
        if not folder.is_dir():
            make_folder(folder)
        warehouse = folder.as_uri()
        uri = uri or f"sqlite:///{folder / 'catalog.db'}"
    if not uri:
        raise WrongTable(f"the warehouse {warehouse} needs a catalog: set BUSYAPI_LAKE_CATALOG")
    return load_catalog(
        CATALOG_NAME,
        **{
            "type": "rest" if is_rest else "sql",
            "uri": uri,
            "warehouse": warehouse,
            "py-io-impl": "busyapi.lake.file_io.SyncedFileIO",
        },
    )


class LakeTable:
    """The table. It is opened, or created, when it is first loaded."""

    def __init__(self, config: LakeConfig) -> None:
        self._config = config
        self._catalog: Catalog | None = None

    def load(self) -> Table:
        """Return the table at its newest snapshot.

        Raises:
            WrongTable: it has other columns, or its files are newer than the catalog.
        """
        if self._catalog is None:
            catalog = open_catalog(self._config)
            table = _load_or_create(catalog, self._config.table)
            _check_table(table, self._config.table)
            stored = list_stored(table, table.metadata_location.rpartition("/")[0])
            check_newest(catalog.load_table(self._config.table), stored)
            self._catalog = catalog
        table = self._catalog.load_table(self._config.table)
        # Not in the catalog, where it would bind other programs. pyiceberg's own retry would append
        # to a newer snapshot with the positions of an older one.
        table.metadata.properties["commit.retry.num-retries"] = "0"
        return table

    def append(
        self, files: Sequence[DataFile], before: Positions, after: Positions, written_at: float
    ) -> bool:
        """Add files and move positions, in one commit.

        Return False if another process has moved one of the positions since `before`: then the
        files hold what it has taken. `written_at`: when the first file was begun.
        """
        for _ in _try_often(written_at):
            table = self.load()
            current = read_positions(table)
            if any(current.get(number) != before.get(number) for number in after):
                break
            properties = encode_positions({**current, **after})
            failpoint("lake-before-commit")
            with suppress(CommitFailedException):
                change = _Change(table)
                with change.update_snapshot(properties).merge_append() as snapshot:
                    for file in files:
                        snapshot.append_data_file(file)
                change.commit_transaction()
                failpoint("lake-after-commit")
                return True
        return False

    def replace(self, old: Sequence[DataFile], new: DataFile, written_at: float) -> bool:
        """Replace files by one with the same rows.

        Return False if one of them was replaced meanwhile, or rows in it were deleted.
        """
        paths = {file.file_path for file in old}
        for _ in _try_often(written_at):
            table = self.load()
            live = {file.file_path for file in list_files(table)}
            if not paths <= live:
                break
            properties = encode_positions(read_positions(table))
            failpoint("lake-before-replace")
            with suppress(CommitFailedException, ValidationException):
                change = _Change(table)
                with change.update_snapshot(properties).overwrite() as snapshot:
                    for file in old:
                        snapshot.delete_data_file(file)
                    snapshot.append_data_file(new)
                change.commit_transaction()
                failpoint("lake-after-replace")
                return True
        return False


class _Change(Transaction):
    """A transaction that computes the table's metadata once after each change to it.

    pyiceberg copies all snapshots whenever a step of a commit asks for the metadata, which they do
    20 times. With the snapshots of a day, a commit would take many seconds.
    """

    _computed: tuple[TableMetadata, tuple[TableUpdate, ...], TableMetadata] | None = None

    @property
    def table_metadata(self) -> TableMetadata:
        base, updates = self._table.metadata, self._updates
        if (known := self._computed) and known[0] is base and known[1] is updates:
            return known[2]
        computed = super().table_metadata
        self._computed = base, updates, computed
        return computed


def _try_often(written_at: float) -> Iterator[None]:
    for _ in range(COMMIT_TRIES):
        if time.time() - written_at > MAX_UNCOMMITTED_SECONDS:
            return
        yield
        # Two processes that wait equally long would meet again.
        time.sleep(random.uniform(0, MAX_RETRY_SECONDS))  # noqa: S311 - no secret


def _load_or_create(catalog: Catalog, name: str) -> Table:
    with suppress(NoSuchTableError):
        return catalog.load_table(name)
    with suppress(NamespaceAlreadyExistsError):
        catalog.create_namespace(name.rpartition(".")[0])
    with suppress(TableAlreadyExistsError):  # another process was faster
        catalog.create_table(
            name, SCHEMA, partition_spec=DAYS, sort_order=ORDER, properties=PROPERTIES
        )
    return catalog.load_table(name)


def _check_table(table: Table, name: str) -> None:
    own = [(field.name, field.field_type) for field in table.schema().fields]
    if own != [(field.name, field.field_type) for field in SCHEMA.fields]:
        raise WrongTable(f"the table {name} has other columns than an export")
    if table.spec().fields != DAYS.fields:
        raise WrongTable(f"the table {name} is not partitioned by the day of received_at")


def list_files(table: Table, where: BooleanExpression | None = None) -> list[DataFile]:
    """Return the data files of the current snapshot in which no row was deleted."""
    tasks = table.scan(row_filter=where or AlwaysTrue()).plan_files()
    return [task.file for task in tasks if not task.delete_files]
