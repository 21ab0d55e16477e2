"""The service on a network with IPv6 alone, with the settings that the chart renders."""

import sys
from base64 import b64decode
from hashlib import sha256
from pathlib import Path

from testkit.chart.rendering import CHART, Json, find_object, render
from testkit.ipv6_only import run_ipv6_only
from testkit.servers import find_program

EXTERNAL: Json = {"valkey": {"enabled": False}, "externalRedis": {"host": "::1"}}
SECONDS = 60
TOKENS = """
[tokens.helm-test]
sha256 = "{digest}"
scopes = ["write", "read"]
"""
SCRAPE = """
import re, sys, urllib.request
for url, name in (pair.split() for pair in sys.argv[1:]):
    text = urllib.request.urlopen(url, timeout=10).read().decode()
    print(re.search(rf"^{name}.*$", text, re.M)[0])
"""


def test_usage_is_archived_and_metrics_are_served_with_ipv6_alone(tmp_path: Path) -> None:
    """The bundled Valkey's own settings, at an address that the values give without brackets."""
    bundled = render()
    secret = find_object(bundled, "Secret", "busyapi-valkey")["data"]
    files = {name: b64decode(text).decode() for name, text in secret.items()}
    files["valkey.conf"] = (
        find_object(bundled, "ConfigMap", "busyapi-valkey")["data"]["valkey.conf"]
        .replace("/etc/valkey", str(tmp_path))
        .replace("dir /data", f"dir {tmp_path}")
    )
    files["archive-secret"] = "secret-of-the-flushers"
    files["token"] = "token-of-helm-test"
    files["tokens.toml"] = TOKENS.format(digest=sha256(files["token"].encode()).hexdigest())
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    settings = find_object(render(EXTERNAL), "ConfigMap", "busyapi")["data"]
    assert settings["BUSYAPI_REDIS_URL"] == "redis://[::1]:6379"
    settings |= {
        "BUSYAPI_KEY_PREFIX": "busyapi",
        "BUSYAPI_FLUSHER_URLS": "http://[::1]:9101",
        "BUSYAPI_ARCHIVE_SECRET_FILE": str(tmp_path / "archive-secret"),
        "BUSYAPI_ARCHIVE_DIR": str(tmp_path / "archive"),
        "BUSYAPI_TOKENS_FILE": str(tmp_path / "tokens.toml"),
        "PORT": "3000",
    }

    def busyapi(role: str, *arguments: str) -> Json:
        login = {
            "BUSYAPI_REDIS_USERNAME": role,
            "BUSYAPI_REDIS_PASSWORD_FILE": str(tmp_path / f"{role}-password"),
        }
        command = [sys.executable, "-m", "busyapi", role, *arguments]
        return {"command": command, "environment": settings | login}

    smoke = {
        "API_URL": "http://[::1]:3000",
        "FLUSHER_URLS": settings["BUSYAPI_FLUSHER_URLS"],
        "ARCHIVE_SECRET_FILE": settings["BUSYAPI_ARCHIVE_SECRET_FILE"],
        "TOKEN_FILE": str(tmp_path / "token"),
        "ANONYMOUS_SCOPES": "",
        "HOSTNAME": "ipv6",
        "PARTITIONS": "1",
        "TIMEOUT_SECONDS": str(SECONDS),
    }
    metrics = [
        "http://[::1]:9090/metrics busyapi_committed_seq",
        "http://[::1]:9100/metrics busyapi_archived_seq",
    ]
    output = run_ipv6_only(
        servers=[
            {
                "command": [str(find_program("valkey")), str(tmp_path / "valkey.conf")],
                "environment": {},
            },
            busyapi("flusher", "--partition", "0"),
            busyapi("api"),
        ],
        checks=[
            {"command": [sys.executable, str(CHART / "files/smoke.py")], "environment": smoke},
            {"command": [sys.executable, "-c", SCRAPE, *metrics], "environment": {}},
        ],
        seconds=SECONDS,
    )
    assert output.splitlines()[-1].endswith(" 1.0")
