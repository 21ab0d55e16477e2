"""Public servers as contenders: each is a program on a port, some with their own Valkey."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property
from http import HTTPStatus
from http.client import HTTPException
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

from perf.contender import Contender
from perf.load import SINGLE, SINGLE_BODY, Load
from testkit.child_process import Child
from testkit.ports import reserve_port
from testkit.servers import Server
from testkit.waiting import wait_until

HERE = Path(__file__).parent
EXPRESS = HERE / "express"
EXPRESS_USES = ("express", "redis")
START_SECONDS = 30.0
INSTALL_SECONDS = 300.0
STREAM_LENGTH = 100_000
"""Maximum entries of webdis's stream: no client reads it, so memory would fill otherwise."""

WEBDIS_LOAD = Load(
    "webdis",
    "/",
    1,
    f"XADD/usages/MAXLEN/~/{STREAM_LENGTH}/*/u/{quote(SINGLE_BODY, safe='')}",
    status=HTTPStatus.OK,
)
"""webdis gets a command that adds the usage to a stream. It answers 200."""


class Peer(Contender):
    """One program. `arguments` returns its command line once its port and server are known."""

    def __init__(
        self,
        folder: Path,
        arguments: Callable[["Peer"], list[str]],
        *,
        versions: Callable[[], dict[str, str]],
        load: Load = SINGLE,
        stores: bool = False,
    ) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.port = reserve_port()
        self.load = load
        self._arguments = arguments
        self._versions = versions
        self.server = Server(folder / "valkey") if stores else None
        self._running = ExitStack()

    @cached_property
    def program(self) -> Child:
        """Return the program's process."""
        return Child(self._arguments(self), log=self.folder / "peer.log")

    @property
    def processes(self) -> dict[str, Child]:
        """Return the program and its Valkey."""
        return {"peer": self.program} | ({"valkey": self.server} if self.server else {})

    @property
    def redis_port(self) -> int:
        """Return the port of its Valkey."""
        if self.server is None:
            raise RuntimeError(f"{self} has no Valkey")
        return self.server.port

    def versions(self) -> dict[str, str]:
        """Return the versions of the software."""
        return self._versions()

    def start(self) -> None:
        """Start all processes; wait until a request gets the expected answer."""
        if self.server:
            self._running.enter_context(self.server)
        self._running.enter_context(self.program)
        wait_until(self._answers, f"{self.program} to answer", seconds=START_SECONDS)

    def close(self) -> None:
        """Stop all, Valkey last. SIGTERM first: some have workers that only they can stop."""
        if self.program.is_running:
            self.program.stop()
        self._running.close()

    def _answers(self) -> bool:
        self.program.check_alive()
        try:
            self.probe(self.load)
        except (OSError, HTTPException):
            return False
        return True


OTHER_FOLDERS = f"{Path(sys.executable).parent}:/usr/sbin"
"""Folders for programs that are not always on PATH: that of Python's environment has
Traefik and NATS."""
INSTALLED_BY = {
    "node": "apt-get install --no-install-recommends nodejs npm",
    "nats-server": "make bench",
    "traefik": "make bench",
}
"""What installs a program if it is not Debian's package of that name."""


def find_program(name: str) -> str:
    """Return the path of a program.

    Raises:
        RuntimeError: The program is not installed. The message says what to type.
    """
    path = shutil.which(name) or shutil.which(name, path=OTHER_FOLDERS)
    if path is None:
        line = INSTALLED_BY.get(name, f"apt-get install --no-install-recommends {name}")
        raise RuntimeError(f"{name} is missing: {line}")
    return path


def aiohttp(folder: Path) -> Peer:
    """Run aiohttp's no-op."""
    return _python(folder, ["aiohttp"], "bench.peers.aiohttp_noop", "--port", "{port}")


def fastapi(folder: Path) -> Peer:
    """Run FastAPI's no-op under uvicorn."""
    options = ("--host", "127.0.0.1", "--port", "{port}", "--no-access-log", "--backlog", "4096")
    packages = ["fastapi", "uvicorn"]
    return _python(folder, packages, "uvicorn", "bench.peers.fastapi_noop:app", *options)


def granian(folder: Path) -> Peer:
    """Run Granian's no-op."""
    options = ("--host", "127.0.0.1", "--port", "{port}", "--interface", "rsgi", "--no-ws")
    return _python(folder, ["granian"], "granian", *options, "bench.peers.granian_noop:app")


def _python(folder: Path, packages: Sequence[str], module: str, *options: str) -> Peer:
    return Peer(
        folder,
        lambda peer: [
            sys.executable,
            "-m",
            module,
            *(option.format(port=peer.port) for option in options),
        ],
        versions=lambda: {package: version(package) for package in packages},
    )


def nginx(folder: Path) -> Peer:
    """Run nginx returning 201."""

    def arguments(peer: Peer) -> list[str]:
        text = (HERE / "nginx.conf").read_text()
        path = peer.folder / "nginx.conf"
        path.write_text(text.replace("FOLDER", str(peer.folder)).replace("PORT", str(peer.port)))
        return [find_program("nginx"), "-p", str(peer.folder), "-c", str(path)]

    return Peer(folder, arguments, versions=lambda: {"nginx": _read_version("nginx", "-v")})


def webdis(folder: Path) -> Peer:
    """Run webdis in front of a durable Valkey."""

    def arguments(peer: Peer) -> list[str]:
        path = peer.folder / "webdis.json"
        settings = {
            "redis_host": "127.0.0.1",
            "redis_port": peer.redis_port,
            "http_host": "127.0.0.1",
            "http_port": peer.port,
            "threads": 1,
            "pool_size": 20,
            "daemonize": False,
            "verbosity": 0,
            "logfile": str(peer.folder / "webdis.log"),
        }
        path.write_text(json.dumps(settings))
        return [find_program("webdis"), str(path)]

    return Peer(
        folder,
        arguments,
        # webdis does not print its version.
        versions=lambda: {
            "webdis": _read_version("dpkg-query", "-W", "-f", "${Version}", "webdis")
        },
        load=WEBDIS_LOAD,
        stores=True,
    )


def express_array(folder: Path) -> Peer:
    """Run Express with an array, as the original did."""
    _install_express()
    script = str(EXPRESS / "array.js")
    return Peer(
        folder, lambda peer: [find_program("node"), script, str(peer.port)], versions=_node_versions
    )


def express_redis(folder: Path) -> Peer:
    """Run Express with INCR and HSET, two workers, in front of a durable Valkey."""
    _install_express()
    script = str(EXPRESS / "redis.js")
    return Peer(
        folder,
        lambda peer: [find_program("node"), script, str(peer.port), str(peer.redis_port)],
        versions=_node_versions,
        stores=True,
    )


def _node_versions() -> dict[str, str]:
    lock = json.loads((EXPRESS / "package-lock.json").read_text())["packages"]
    packages = {f"npm {name}": lock[f"node_modules/{name}"]["version"] for name in EXPRESS_USES}
    return {"node": _read_version("node", "--version"), **packages}


def _read_version(program: str, *arguments: str) -> str:
    """Return the version that a program prints to stdout or stderr."""
    run = subprocess.run(
        [find_program(program), *arguments], capture_output=True, text=True, timeout=10, check=False
    )
    return (run.stdout + run.stderr).strip().rpartition("/")[2]


def _install_express() -> None:
    """Install the packages of the lock file, unless they are installed.

    Raises:
        RuntimeError: npm failed. The message has its output.
    """
    if (EXPRESS / "node_modules" / "redis").is_dir():
        return
    process = subprocess.run(
        [find_program("npm"), "ci", "--no-audit", "--no-fund"],
        cwd=EXPRESS,
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
        check=False,
    )
    if process.returncode:
        raise RuntimeError(f"npm ci failed:\n{process.stderr[-2000:]}")
