"""The program of `helm test`, with the credential that the chart makes, on real processes."""

import os
import subprocess
import sys
from base64 import b64decode
from pathlib import Path

import pytest

from testkit.chart.rendering import environment, find_object, render
from testkit.processes import OPEN, Stack
from testkit.servers import Server
from tests.conftest import Stacks

DOCUMENTS = render()
SECONDS = 30


def write_secret(name: str, folder: Path) -> Path:
    """Write a Secret as a volume has it."""
    folder.mkdir()
    for key, value in find_object(DOCUMENTS, "Secret", name)["data"].items():
        (folder / key).write_bytes(b64decode(value))
    return folder


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """The folder with the Secrets of the chart."""
    for name in ("busyapi-test", "busyapi-archive"):
        write_secret(name, tmp_path / name)
    return tmp_path


def start(stacks: Stacks, valkey: Server, secrets: Path, anonymous: str) -> Stack:
    settings = {
        "BUSYAPI_TOKENS_FILE": str(secrets / "busyapi-test"),
        "BUSYAPI_ARCHIVE_SECRET_FILE": str(secrets / "busyapi-archive" / "secret"),
    }
    stack = stacks(valkey, settings=settings)
    if anonymous:
        (api,) = stack.apis
        api.environment["BUSYAPI_ANONYMOUS"] = anonymous
        api.restart()
    return stack


def run(stack: Stack, secrets: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run the program of the test pod."""
    (container,) = find_object(DOCUMENTS, "Pod", "busyapi-test")["spec"]["containers"]
    variables = {
        **environment(container),
        "API_URL": f"http://127.0.0.1:{stack.port}",
        "FLUSHER_URLS": f"http://127.0.0.1:{stack.flushers[0].archive_port}",
        "TOKEN_FILE": str(secrets / "busyapi-test" / "token"),
        "ARCHIVE_SECRET_FILE": str(secrets / "busyapi-archive" / "secret"),
        "HOSTNAME": "test",
        **changes,
    }
    return subprocess.run(
        [sys.executable, "-c", *container["args"]],
        check=False,
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
        env={"PATH": os.environ["PATH"], **variables},
    )


def test_usage_is_posted_and_found_in_a_closed_installation(
    stacks: Stacks, valkey: Server, secrets: Path
) -> None:
    stack = start(stacks, valkey, secrets, "")
    process = run(stack, secrets)
    assert process.returncode == 0, process.stderr
    assert "posted usage 1\n" in process.stdout
    assert "usage 1 is in the archive of partition 0" in process.stdout
    outside = run(stack, secrets, FLUSHER_URLS="")
    assert outside.returncode == 0, outside.stderr
    (secrets / "busyapi-test" / "token").write_text("another")
    refused = run(stack, secrets, TIMEOUT_SECONDS="2")
    assert refused.returncode == 1
    assert "Last failure: 401" in refused.stderr


def test_installation_that_is_open_without_being_said_to_be_fails(
    stacks: Stacks, valkey: Server, secrets: Path
) -> None:
    stack = start(stacks, valkey, secrets, OPEN)
    failed = run(stack, secrets)
    assert failed.returncode == 1
    assert "answered 200 to a request without a credential" in failed.stderr
    assert run(stack, secrets, ANONYMOUS_SCOPES=OPEN).returncode == 0
