"""Refused, misused and unreadable credentials fire their alerts."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from testkit.http1 import fetch
from testkit.monitored_stack import run_monitored_stack

REFUSED, NOT_RELOADED = "BusyapiCredentialsRefused", "BusyapiCredentialsNotReloaded"
SEQUENTIAL = "BusyapiSequentialReads"
TABLE = f'[tokens.device]\nsha256 = "{sha256(b"t").hexdigest()}"\nscopes = ["write", "read"]\n'


@contextmanager
def lookups(port: int, make_request: Callable[[int], tuple[int, dict[str, str]]]) -> Iterator[None]:
    """Ask for usages all the time, by the id and the headers of each request."""
    stop = threading.Event()

    def ask() -> None:
        for number in range(1, 1 << 24):
            if stop.is_set():
                return
            usage, headers = make_request(number)
            fetch(port, f"/api/usages/{usage}", headers=headers)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)


def ask_as_stranger(number: int) -> tuple[int, dict[str, str]]:
    """Have no credential, and each time another address."""
    address = f"198.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    return 1, {"X-Forwarded-For": address}


def ask_for_next(number: int) -> tuple[int, dict[str, str]]:
    """Enumerate ids."""
    return number, {"Authorization": "Bearer t"}


def test_refused_misused_and_unreadable_credentials_fire_their_alerts(
    tmp_path: Path, rules: Mapping[str, Any]
) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(TABLE)
    (group,) = (group for group in rules["groups"] if group["name"] == "busyapi-credentials")
    settings = {
        "BUSYAPI_TOKENS_FILE": str(tokens),
        "BUSYAPI_TRUSTED_PROXIES": "127.0.0.0/8",
        "BUSYAPI_AUDIT": "off",
    }
    with run_monitored_stack(tmp_path, {"groups": [group]}, **settings) as monitored:
        port = monitored.stack.port
        monitored.expect_quiet(REFUSED, SEQUENTIAL, NOT_RELOADED)
        with lookups(port, ask_as_stranger):
            monitored.prometheus.wait_until_firing(REFUSED)
            monitored.expect_quiet(SEQUENTIAL, NOT_RELOADED)
        monitored.prometheus.wait_until_resolved(REFUSED)
        with lookups(port, ask_for_next):
            monitored.prometheus.wait_until_firing(SEQUENTIAL)
            monitored.expect_quiet(REFUSED, NOT_RELOADED)
        monitored.prometheus.wait_until_resolved(SEQUENTIAL)
        tokens.write_text("[tokens.device]\n")
        monitored.prometheus.wait_until_firing(NOT_RELOADED)
        tokens.write_text(TABLE)
        monitored.prometheus.wait_until_resolved(NOT_RELOADED)
