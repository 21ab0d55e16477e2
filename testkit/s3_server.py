"""A real S3 server for tests: the Versity S3 Gateway, whose buckets are folders."""

import http.client
from pathlib import Path

from pyarrow import fs

from testkit.child_process import Child
from testkit.ports import reserve_port
from testkit.waiting import wait_until

BUCKET = "usages"
ACCESS_KEY, SECRET_KEY, REGION = "lake", "not-a-secret", "eu-central-1"
HEALTH_PATH = "/health"
PREFIX = "PYICEBERG_CATALOG__BUSYAPI__"


class S3Server(Child):
    """The server with one bucket, on a port that stays the same over restarts."""

    def __init__(self, program: Path, folder: Path) -> None:
        (folder / "buckets").mkdir(parents=True)
        self.port = reserve_port()
        keys = ["--access", ACCESS_KEY, "--secret", SECRET_KEY, "--region", REGION]
        address = ["--port", f"127.0.0.1:{self.port}", "--health", HEALTH_PATH]
        words: list[str | Path] = [program, *keys, *address, "posix", folder / "buckets"]
        super().__init__(words, log=folder / "server.log")

    @property
    def properties(self) -> dict[str, str]:
        """The properties with which pyiceberg connects to it."""
        return {
            "s3.endpoint": f"http://127.0.0.1:{self.port}",
            "s3.region": REGION,
            "s3.access-key-id": ACCESS_KEY,
            "s3.secret-access-key": SECRET_KEY,
        }

    @property
    def settings(self) -> dict[str, str]:
        """The same as environment variables."""
        return {
            PREFIX + name.upper().replace(".", "__").replace("-", "_"): value
            for name, value in self.properties.items()
        }

    def connect(self) -> fs.S3FileSystem:
        """Return Arrow's client."""
        return fs.S3FileSystem(
            access_key=ACCESS_KEY,
            secret_key=SECRET_KEY,
            region=REGION,
            endpoint_override=self.properties["s3.endpoint"],
            allow_bucket_creation=True,
        )

    def start(self) -> None:
        """Start it, wait until it answers, and create the bucket."""
        self.spawn()
        wait_until(lambda: self.check_alive() and self._is_healthy(), f"{self} to answer")
        self.connect().create_dir(BUCKET)

    def _is_healthy(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", HEALTH_PATH)
            return connection.getresponse().status == http.HTTPStatus.OK
        except OSError:
            return False
        finally:
            connection.close()
