"""An Iceberg REST catalog: pyiceberg's SQL catalog behind the requests that a lake sends.

It can lose the answer of a commit, or refuse one, as a proxy or an overloaded catalog does.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from pyiceberg.catalog.rest import CreateTableRequest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.table import CommitTableRequest, Table
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER

TABLE_PATH = re.compile(r"/v1/namespaces/(\w+)/tables/(\w+)")


class RestCatalog(ThreadingHTTPServer):
    """The server, and what it does to the next commits."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        uri = f"sqlite:///{folder / 'catalog.db'}"
        self.tables = SqlCatalog("rest", uri=uri, warehouse=(folder / "warehouse").as_uri())
        self.lock = Lock()
        """Guards `tables`: a real catalog commits one change at a time."""
        self.next_commits: list[str] = []
        """Each `lost` (committed, without an answer), `503` or `409` (not committed)."""
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def uri(self) -> str:
        """The URI for a client."""
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def run_rest_catalog(folder: Path) -> Iterator[RestCatalog]:
    """Run a catalog whose files are in a new folder."""
    with RestCatalog(folder) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: RestCatalog

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        if self.path.startswith("/v1/config"):
            self._answer(200, {"defaults": {}, "overrides": {}})
            return
        namespace, name = _match(self.path)
        try:
            with self.server.lock:
                self._answer_table(self.server.tables.load_table((namespace, name)))
        except NoSuchTableError:
            self._refuse(404, "NoSuchTableException")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            if self.path == "/v1/namespaces":
                self.server.tables.create_namespace(tuple(body["namespace"]))
                self._answer(200, body)
            elif TABLE_PATH.fullmatch(self.path):
                self._commit(body)
            else:
                self._create(body)

    def _create(self, body: Mapping[str, Any]) -> None:
        sent = CreateTableRequest.model_validate({"location": None, **body})
        table = self.server.tables.create_table(
            (self.path.split("/")[3], sent.name),
            sent.table_schema,
            partition_spec=sent.partition_spec or UNPARTITIONED_PARTITION_SPEC,
            sort_order=sent.write_order or UNSORTED_SORT_ORDER,
            properties=sent.properties,
        )
        self._answer_table(table)

    def _commit(self, body: Mapping[str, Any]) -> None:
        fate = self.server.next_commits.pop(0) if self.server.next_commits else ""
        if fate.isdigit():
            self._refuse(int(fate), "CommitFailedException")
            return
        sent = CommitTableRequest.model_validate(body)
        tables, name = self.server.tables, _match(self.path)
        try:
            tables.commit_table(tables.load_table(name), sent.requirements, sent.updates)
        except CommitFailedException:
            self._refuse(409, "CommitFailedException")
            return
        if fate == "lost":
            self.close_connection = True
            return
        self._answer_table(tables.load_table(name))

    def _answer_table(self, table: Table) -> None:
        metadata = json.loads(table.metadata.model_dump_json())
        self._answer(200, {"metadata-location": table.metadata_location, "metadata": metadata})

    def _refuse(self, status: int, kind: str) -> None:
        self._answer(status, {"error": {"message": kind, "type": kind, "code": status}})

    def _answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _match(path: str) -> tuple[str, str]:
    match = TABLE_PATH.fullmatch(path)
    assert match, path
    return match[1], match[2]
