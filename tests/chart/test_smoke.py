"""The program of `helm test`, with the credential that the chart makes, on real processes."""

import os
import shutil
import subprocess
import sys
from base64 import b64decode
from pathlib import Path

import pytest

from testkit.certificates import Certificates, make_certificates
from testkit.chart.rendering import environment, find_object, pod_spec, render
from testkit.processes import OPEN, Stack
from testkit.servers import Server
from tests.conftest import Stacks

DOCUMENTS = render()
SECONDS = 30
TLS = render({"archivePort": {"tls": {"existingSecret": "flusher-tls", "clientSecret": "api-tls"}}})
ROLES = {"api": ("Deployment", "busyapi"), "flusher": ("StatefulSet", "busyapi-flusher")}


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


def mount_certificates(folder: Path, role: str) -> dict[str, str]:
    """Write the certificates of a role as its volume has them, and return its settings."""
    spec = pod_spec(TLS, *ROLES[role])
    (volume,) = (volume for volume in spec["volumes"] if volume["name"] == "archive-tls")
    (folder / role).mkdir()
    for source in volume["projected"]["sources"]:
        made = folder / source["secret"]["name"]
        if not made.exists():
            made.mkdir()
            make_certificates(made)
        files = Certificates(*(made / name for name in ("ca.pem", "server.pem", "server.key")))
        contents = dict(zip(("ca.crt", "tls.crt", "tls.key"), files, strict=True))
        for item in source["secret"]["items"]:
            (folder / role / item["path"]).write_bytes(contents[item["key"]].read_bytes())
    return {
        name: str(folder / role / Path(value).name)
        for name, value in environment(spec["containers"][0]).items()
        if str(value).startswith("/etc/busyapi/archive-tls/")
    }


def start(stacks: Stacks, valkey: Server, secrets: Path, anonymous: str, **settings: str) -> Stack:
    settings |= {
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


def test_usage_is_found_through_the_certificates_of_the_chart(
    stacks: Stacks, valkey: Server, secrets: Path
) -> None:
    settings = mount_certificates(secrets, "api") | mount_certificates(secrets, "flusher")
    assert len(settings) == 6
    stack = start(stacks, valkey, secrets, "", **settings)
    port = stack.flushers[0].archive_port
    folder = Path(shutil.copytree(secrets / "api", secrets / "test"))
    changes = {"FLUSHER_URLS": f"https://127.0.0.1:{port}", "ARCHIVE_TLS_FOLDER": str(folder)}
    process = run(stack, secrets, **changes)
    assert process.returncode == 0, process.stderr
    assert "usage 1 is in the archive of partition 0" in process.stdout
    (folder / "tls.crt").unlink()
    refused = run(stack, secrets, TIMEOUT_SECONDS="2", **changes)
    assert refused.returncode == 1
    assert f"https://127.0.0.1:{port}/usages/2 did not answer 2xx" in refused.stderr
