"""The landing page in a real browser."""

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from testkit.http1 import fetch
from testkit.servers import Server
from tests.conftest import Stacks

QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=4000",
]
USAGE = b'{"patientId":"100","timestamp":1478009511000,"medication":"Albuterol"}'


@pytest.fixture
def chromium() -> str:
    path = shutil.which("chromium")
    if path is None:
        pytest.fail("chromium is missing: run .ci/system-packages, or apt-get install chromium")
    return path


def test_page_shows_the_curl_line_and_live_counts(
    valkey: Server, stacks: Stacks, chromium: str, tmp_path: Path
) -> None:
    stack = stacks(valkey)
    for _ in range(3):
        assert fetch(stack.port, "/api/usages", method="POST", body=USAGE).status == 201
    stack.wait_until_archived()
    profile, address = f"--user-data-dir={tmp_path / 'profile'}", f"http://localhost:{stack.port}/"
    run = subprocess.run(
        [chromium, *QUIET, profile, "--dump-dom", address],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    shown = dict(re.findall(r'<dd id="(\w+)">([^<]*)</dd>', run.stdout))
    assert shown == {"count": "3", "archived": "3", "buffered": "0"}
    curl = re.search(r'<pre id="curl">(.*?)</pre>', run.stdout, re.DOTALL)
    assert curl
    typed = subprocess.run(
        ["sh", "-c", html.unescape(curl[1])],
        capture_output=True,
        check=True,
        text=True,
        timeout=20,
    )
    assert typed.stdout == '{"id":4}'
    links = re.findall(r'<a href="([^"]+)"', run.stdout)
    assert "/openapi.json" in links
    for link in links:
        assert link.startswith(("/api/", "/openapi.json")), "no Ingress routes anything else"
        assert fetch(stack.port, link).status == 200
    assert re.search(r'<p id="state" role="status"></p>', run.stdout), "the page shows an error"
