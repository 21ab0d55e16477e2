"""Post one usage to the API's Service, and wait until its flusher has archived it.

`helm test` runs this in the image of the service, with only Python's standard library.
"""
# ruff: noqa: INP001 - a script, in no package

import json
import os
import sys
import time
import urllib.error
import urllib.request
from http import HTTPStatus
from pathlib import Path

API = os.environ["API_URL"]
FLUSHERS = os.environ["FLUSHER_URLS"]
PARTITIONS = int(os.environ["PARTITIONS"])
DEADLINE = time.monotonic() + float(os.environ["TIMEOUT_SECONDS"])
TOKENS = os.environ.get("TOKENS_FILE", "")
TIMEOUT_SECONDS = 5.0
RETRY_SECONDS = 0.5
USAGE = {"patientId": "helm-test", "timestamp": int(time.time() * 1000), "medication": "helm-test"}


def authorization(right: str) -> dict[str, str]:
    """Return a header with a token that has this right, or nothing if authentication is off."""
    if not TOKENS:
        return {}
    for line in Path(TOKENS).read_text(encoding="utf-8").splitlines():
        words = line.split()
        if len(words) > 1 and right in words[0].split(","):
            return {"Authorization": f"Bearer {words[1]}"}
    sys.exit(f"auth: no token has the right {right}, which this test needs: add one")


def request(url: str, headers: dict[str, str], body: bytes | None = None) -> bytes:
    """Send a request until it is answered 2xx. The Idempotency-Key makes a retry safe."""
    while True:
        try:
            attempt = urllib.request.Request(url, body, headers)  # noqa: S310 - http, from the chart
            with urllib.request.urlopen(attempt, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310
                return bytes(response.read())
        except urllib.error.HTTPError as error:
            failure = f"{error.code} {error.read(500).decode(errors='replace')}"
            if error.code < HTTPStatus.INTERNAL_SERVER_ERROR and error.code != HTTPStatus.NOT_FOUND:
                sys.exit(f"{url} answered {failure}")
        except OSError as error:
            failure = str(error)
        if time.monotonic() > DEADLINE:
            sys.exit(f"{url} did not answer 2xx in time. Last failure: {failure}")
        time.sleep(RETRY_SECONDS)


def main() -> None:
    """Post a usage, read it back, and find it in the archive."""
    key = f"helm-test-{os.environ['HOSTNAME']}-{time.time_ns()}"
    headers = {"Content-Type": "application/json", "Idempotency-Key": key, **authorization("write")}
    usage_id = json.loads(request(f"{API}/api/usages", headers, json.dumps(USAGE).encode()))["id"]
    print(f"posted usage {usage_id}", flush=True)  # noqa: T201
    lookup = json.loads(request(f"{API}/api/usages/{usage_id}", authorization("read")))
    # An id is (seq - 1) * partitions + partition + 1.
    seq, partition = (usage_id - 1) // PARTITIONS + 1, (usage_id - 1) % PARTITIONS
    flusher = FLUSHERS.replace("{partition}", str(partition))
    archived = json.loads(request(f"{flusher}/usages/{seq}", {}))
    if not lookup["usage"] == archived["usage"] == USAGE or archived["id"] != usage_id:
        sys.exit(f"posted {USAGE}, read {lookup}, archived {archived}")
    print(f"usage {usage_id} is in the archive of partition {partition}")  # noqa: T201


main()
