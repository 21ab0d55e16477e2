"""Refused and unreadable credentials fire their alerts."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from testkit.http1 import fetch
from testkit.monitored_stack import run_monitored_stack

REFUSED, NOT_RELOADED = "BusyapiCredentialsRefused", "BusyapiCredentialsNotReloaded"
TABLE = f'[tokens.device]\nsha256 = "{sha256(b"t").hexdigest()}"\nscopes = ["write"]\n'


@contextmanager
def strangers(port: int) -> Iterator[None]:
    """Ask for usages without a credential, each time from another address."""
    stop = threading.Event()

    def ask() -> None:
        for number in range(1 << 24):
            if stop.is_set():
                return
            address = f"198.{number >> 16}.{number >> 8 & 255}.{number & 255}"
            fetch(port, "/api/usages/1", headers={"X-Forwarded-For": address})

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)


def test_refused_and_unreadable_credentials_fire_their_alerts(
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
        monitored.expect_quiet(REFUSED, NOT_RELOADED)
        with strangers(monitored.stack.port):
            monitored.prometheus.wait_until_firing(REFUSED)
            monitored.expect_quiet(NOT_RELOADED)
        monitored.prometheus.wait_until_resolved(REFUSED)
        tokens.write_text("[tokens.device]\n")
        monitored.prometheus.wait_until_firing(NOT_RELOADED)
        tokens.write_text(TABLE)
        monitored.prometheus.wait_until_resolved(NOT_RELOADED)
