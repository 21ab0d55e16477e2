"""Post one usage to the API, and wait until its flusher has archived it.

`helm test` runs this in the image of the service, with only Python's standard library: once with
the API's Service, and once from outside, where the flushers cannot be reached.
"""
# ruff: noqa: INP001 - a script, in no package

import json
import os
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from http import HTTPStatus
from pathlib import Path
from typing import Any

API = os.environ["API_URL"]
FLUSHERS = os.environ.get("FLUSHER_URLS", "")
PARTITIONS = int(os.environ["PARTITIONS"])
CONNECT_TO = os.environ.get("CONNECT_TO", "")
VERIFY = os.environ.get("VERIFY_CERTIFICATE", "true") == "true"
DEADLINE = time.monotonic() + float(os.environ["TIMEOUT_SECONDS"])
TOKEN = os.environ["TOKEN_FILE"]
TIMEOUT_SECONDS = 5.0
RETRY_SECONDS = 0.5
ARCHIVE_TLS = os.environ.get("ARCHIVE_TLS_FOLDER", "")
# The usage is not archived yet; the API's pods do not have the new credential yet.
LATER = (HTTPStatus.NOT_FOUND, HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS)
ANONYMOUS = os.environ["ANONYMOUS_SCOPES"].split(",")
USAGE = {"patientId": "helm-test", "timestamp": int(time.time() * 1000), "medication": "helm-test"}


def authorization() -> dict[str, str]:
    """Return a header with the token of this test."""
    return {"Authorization": f"Bearer {Path(TOKEN).read_text(encoding='ascii').strip()}"}


def archive_authorization() -> dict[str, str]:
    """Return a header with the secret of the flushers."""
    secret = Path(os.environ["ARCHIVE_SECRET_FILE"]).read_text(encoding="ascii").split()[0]
    return {"Authorization": f"Bearer {secret}"}


def look_up_connect_to() -> None:
    """Connect to the given address, whatever the name in the URL: as `curl --connect-to` does."""
    host, _, port = CONNECT_TO.rpartition(":")
    look_up = socket.getaddrinfo

    def replaced(*_: Any, **options: Any) -> Any:
        return look_up(host, int(port), **{"type": socket.SOCK_STREAM, **options})

    socket.getaddrinfo = replaced


def tls(url: str) -> ssl.SSLContext | None:
    """Return the context for a URL. With a folder of certificates, only flushers have https."""
    if not url.startswith("https"):
        return None
    if ARCHIVE_TLS:
        return archive_tls(Path(ARCHIVE_TLS))
    context = ssl.create_default_context()
    if not VERIFY:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def archive_tls(folder: Path) -> ssl.SSLContext:
    """Return the context for flushers, with the certificate of API pods if they have one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(folder / "ca.crt")
    if (folder / "tls.crt").exists():
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return context


def request(url: str, headers: dict[str, str], body: bytes | None = None) -> bytes:
    """Send a request until it gets a 2xx. The Idempotency-Key makes a retry safe."""
    while True:
        try:
            attempt = urllib.request.Request(url, body, headers)  # noqa: S310 - http, from the chart
            with urllib.request.urlopen(  # noqa: S310
                attempt, timeout=TIMEOUT_SECONDS, context=tls(url)
            ) as response:
                return bytes(response.read())
        except urllib.error.HTTPError as error:
            failure = f"{error.code} {error.read(500).decode(errors='replace')}"
            if error.code < HTTPStatus.INTERNAL_SERVER_ERROR and error.code not in LATER:
                sys.exit(f"{url} answered {failure}")
        except OSError as error:
            failure = str(error)
        if time.monotonic() > DEADLINE:
            sys.exit(f"{url} did not answer 2xx in time. Last failure: {failure}")
        time.sleep(RETRY_SECONDS)


def require_refusal(url: str) -> None:
    """Exit unless a read without a credential is refused."""
    try:
        with urllib.request.urlopen(  # noqa: S310 - http, from the chart
            url, timeout=TIMEOUT_SECONDS, context=tls(url)
        ) as response:
            sys.exit(f"{url} answered {response.status} to a request without a credential")
    except urllib.error.HTTPError as error:
        if error.code not in {HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS}:
            sys.exit(f"{url} answered {error.code} to a request without a credential")


def main() -> None:
    """Post a usage, read it back, and find it in the archive."""
    if CONNECT_TO:
        look_up_connect_to()
    key = f"helm-test-{os.environ['HOSTNAME']}-{time.time_ns()}"
    headers = {"Content-Type": "application/json", "Idempotency-Key": key, **authorization()}
    usage_id = json.loads(request(f"{API}/api/usages", headers, json.dumps(USAGE).encode()))["id"]
    print(f"posted usage {usage_id}", flush=True)  # noqa: T201
    lookup = json.loads(request(f"{API}/api/usages/{usage_id}", authorization()))
    if "read" not in ANONYMOUS:
        require_refusal(f"{API}/api/usages/{usage_id}")
    if not FLUSHERS:
        if lookup["usage"] != USAGE:
            sys.exit(f"posted {USAGE}, read {lookup}")
        print(f"usage {usage_id} was posted and read through {API}")  # noqa: T201
        return
    # An id is (seq - 1) * partitions + partition + 1.
    seq, partition = (usage_id - 1) // PARTITIONS + 1, (usage_id - 1) % PARTITIONS
    flusher = FLUSHERS.replace("{partition}", str(partition))
    archived = json.loads(request(f"{flusher}/usages/{seq}", archive_authorization()))
    if not lookup["usage"] == archived["usage"] == USAGE or archived["id"] != usage_id:
        sys.exit(f"posted {USAGE}, read {lookup}, archived {archived}")
    print(f"usage {usage_id} is in the archive of partition {partition}")  # noqa: T201


main()
