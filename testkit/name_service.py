"""Host names of one test: a hosts file and a DNS that only some processes see, and that can fail.

Each process gets a mount namespace in which the test's files are at `/etc/hosts` and
`/etc/resolv.conf`. The system's own resolver reads them, so its failures are real ones.
"""

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from testkit.processes import Process

DNS_PORT = 53

_MOUNT = 'mount --bind "$0" /etc/hosts && mount --bind "$1" /etc/resolv.conf && shift && exec "$@"'


class NameService:
    """The names that the processes of a test can look up."""

    def __init__(self, folder: Path, hosts: Mapping[str, str]) -> None:
        folder.mkdir(parents=True)
        self._hosts, self._dns = folder / "hosts", folder / "resolv.conf"
        self._addresses = dict(hosts)
        # Nothing listens there, except after `mute`. Each run of tests has its own address.
        self._address = f"127.1.{os.getpid() // 256 % 256}.{os.getpid() % 256}"
        self.set_timeout(5, attempts=1)
        self._silent_dns: socket.socket | None = None
        self.restore()

    def serve(self, *processes: Process) -> None:
        """Let processes look up these names, from their next start on."""
        for process in processes:
            files = (str(self._hosts), str(self._dns))
            process.argv = ["unshare", "--mount", "sh", "-c", _MOUNT, *files, *process.argv]
            process.is_forked = False

    def set_timeout(self, seconds: int, *, attempts: int) -> None:
        """Set how often, and for how long, the resolver waits for a DNS that does not answer."""
        options = f"options timeout:{seconds} attempts:{attempts}"
        self._dns.write_text(f"nameserver {self._address}\n{options}\n")

    def move(self, name: str, address: str) -> None:
        """Let lookups find a name at another address from the next `restore` on."""
        self._addresses[name] = address

    def remove(self, name: str) -> None:
        """Let no lookup find a name any more."""
        del self._addresses[name]
        self.restore()

    def restore(self) -> None:
        """Let every lookup succeed, as at the start."""
        self.close()
        lines = [f"{address} {name}\n" for name, address in self._addresses.items()]
        self._hosts.write_text("".join(lines))

    def fail(self) -> None:
        """Let every lookup fail at once."""
        self._hosts.write_text("")

    def mute(self) -> None:
        """Let every lookup wait for a DNS that does not answer."""
        self._silent_dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._silent_dns.bind((self._address, DNS_PORT))
        self.fail()

    def close(self) -> None:
        """Close the DNS."""
        if self._silent_dns:
            self._silent_dns.close()
            self._silent_dns = None
