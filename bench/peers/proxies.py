"""Proxies in front of a stack. Each uses one core at most, and keeps connections to the API."""

import os
import re
import ssl
import subprocess
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path

from bench.peers.contenders import HERE, START_SECONDS, find_program
from perf.stack import BusyapiStack
from testkit.certificates import make_certificates
from testkit.child_process import Child
from testkit.http1 import Tls, fetch
from testkit.ports import reserve_port
from testkit.waiting import wait_until

ONE_CORE = {"GOMAXPROCS": "1"}
"""For Traefik. The other files of configuration say it themselves."""


@dataclass(frozen=True)
class Proxy:
    """A program with its configuration, in which FOLDER, PORT, TLS and API are replaced."""

    name: str
    config: str
    arguments: tuple[str, ...]
    """In them, FOLDER, PORT and CONFIG are replaced."""
    version_argument: str

    def version(self) -> str:
        """Return its version."""
        run = subprocess.run(
            [find_program(self.name), self.version_argument],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        match = re.search(r"\d+\.\d+\.\d+\S*", run.stdout + run.stderr)
        return match[0] if match else ""


NGINX = Proxy("nginx", "proxy_nginx.conf", ("-p", "FOLDER", "-c", "CONFIG"), "-v")
HAPROXY = Proxy("haproxy", "proxy_haproxy.cfg", ("-db", "-f", "CONFIG"), "-v")
TRAEFIK = Proxy(
    "traefik",
    "proxy_traefik.yaml",
    (
        "--entrypoints.devices.address=127.0.0.1:PORT",
        "--providers.file.filename=CONFIG",
        "--log.level=ERROR",
        "--global.checknewversion=false",
    ),
    "version",
)


class ProxiedStack(BusyapiStack):
    """A stack whose load arrives through a proxy, with TLS if that is asked for."""

    def __init__(self, folder: Path, proxy: Proxy, *, has_tls: bool = False) -> None:
        super().__init__(folder, apis=1)
        self.port = reserve_port()
        self._folder = folder
        self._proxy = proxy
        self._certificates = make_certificates(folder)
        if has_tls:
            context = ssl.create_default_context(cafile=self._certificates.ca)
            self.tls = Tls(context, "localhost")

    @cached_property
    def proxy(self) -> Child:
        """Return the proxy's process."""
        config = self._folder / self._proxy.config
        values = {
            "FOLDER": str(self._folder),
            "CONFIG": str(config),
            "PORT": str(self.port),
            "API": str(self.stack.port),
            "TLS": " ssl" if self.tls else "",
        }
        config.write_text(_fill((HERE / self._proxy.config).read_text(), values))
        arguments = [_fill(argument, values) for argument in self._proxy.arguments]
        return Child(
            [find_program(self._proxy.name), *arguments],
            log=self._folder / "proxy.log",
            environment=os.environ | ONE_CORE,
        )

    @property
    def processes(self) -> dict[str, Child]:
        """Return the processes, those of the API first."""
        return super().processes | {self._proxy.name: self.proxy}

    def versions(self) -> dict[str, str]:
        """Return the versions of the software."""
        return super().versions() | {self._proxy.name: self._proxy.version()}

    def start(self) -> None:
        """Start the stack, then the proxy; wait until a request gets through."""
        super().start()
        self._running.enter_context(self.proxy)
        wait_until(self._is_ready, f"{self.proxy} to forward", seconds=START_SECONDS)

    def _is_ready(self) -> bool:
        self.proxy.check_alive()
        try:
            return fetch(self.port, "/readyz", tls=self.tls).status == HTTPStatus.OK
        except (OSError, HTTPException):
            return False


def _fill(text: str, values: dict[str, str]) -> str:
    return re.sub("|".join(values), lambda match: values[match[0]], text)
