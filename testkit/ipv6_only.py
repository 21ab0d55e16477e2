"""Run commands in a network namespace that has IPv6 alone.

`run_ipv6_only` starts this file as a program in the namespace. It turns on the loopback interface,
removes its IPv4 address, starts the servers, runs the checks, and stops the servers.
"""

import errno
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

SET_ADDRESS, SET_FLAGS = 0x8916, 0x8914
"""ioctl requests of netdevice(7)."""
UP_AND_RUNNING = 0x1 | 0x40


def run_ipv6_only(
    servers: list[dict[str, Any]], checks: list[dict[str, Any]], *, seconds: float
) -> str:
    """Run the checks one after the other while the servers run. Return their output.

    Each is a map of `command` and `environment`.

    Raises:
        AssertionError: a check failed; the message has the output.
    """
    plan = json.dumps({"servers": servers, "checks": checks, "seconds": seconds})
    command = ["unshare", "--map-root-user", "--net", sys.executable, __file__]
    process = subprocess.run(
        command, input=plan, capture_output=True, text=True, check=False, timeout=2 * seconds
    )
    if process.returncode:
        raise AssertionError(process.stdout + process.stderr)
    return process.stdout


def remove_ipv4() -> None:
    """Turn on the loopback interface and leave it only its IPv6 address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SET_FLAGS, struct.pack("16sh14x", b"lo", UP_AND_RUNNING))
        none = struct.pack("16sH2x4s8x", b"lo", socket.AF_INET, bytes(4))
        fcntl.ioctl(control, SET_ADDRESS, none)
    with socket.socket(socket.AF_INET) as client:
        code = client.connect_ex(("127.0.0.1", 1))
    if code != errno.ENETUNREACH:
        raise RuntimeError(f"IPv4 is still there: {os.strerror(code)}")


def main() -> int:
    """Run the plan of stdin."""
    plan = json.load(sys.stdin)
    remove_ipv4()
    servers = []
    try:
        for server in plan["servers"]:
            environment = os.environ | server["environment"]
            servers.append(subprocess.Popen(server["command"], env=environment, stdout=2))
        for check in plan["checks"]:
            environment = os.environ | check["environment"]
            subprocess.run(check["command"], env=environment, check=True, timeout=plan["seconds"])
    finally:
        for process in servers:
            process.kill()
            process.wait()
    return 0


if __name__ == "__main__":
    sys.path[:] = [path for path in sys.path if path != str(Path(__file__).parent)]
    sys.exit(main())
