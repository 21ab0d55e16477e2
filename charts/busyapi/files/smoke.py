"""Post one usage to the API's Service, and wait until its flusher has it in the archive.

Run by `helm test` in the service's own image: nothing but Python's standard library.
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
ANSWER_SECONDS = 5.0
PAUSE_SECONDS = 0.5
USAGE = {"patientId": "helm-test", "timestamp": int(time.time() * 1000), "medication": "helm-test"}


def token(right: str) -> dict[str, str]:
    """Give the header of a token that may do this; none where authentication is off."""
    if not TOKENS:
        return {}
    for line in Path(TOKENS).read_text(encoding="utf-8").splitlines():
        words = line.split()
        if len(words) > 1 and right in words[0].split(","):
            return {"Authorization": f"Bearer {words[1]}"}
    sys.exit(f"auth: no token may {right}, so this test cannot: add one")


def ask(url: str, headers: dict[str, str], body: bytes | None = None) -> bytes:
    """Ask until the answer is 2xx, or the time is over; the same key makes a repeat safe."""
    while True:
        try:
            request = urllib.request.Request(url, body, headers)  # noqa: S310 - http, from the chart
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:  # noqa: S310
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            said = f"{error.code} {error.read(500).decode(errors='replace')}"
            if error.code < HTTPStatus.INTERNAL_SERVER_ERROR and error.code != HTTPStatus.NOT_FOUND:
                sys.exit(f"{url} answers {said}")
        except OSError as error:
            said = str(error)
        if time.monotonic() > DEADLINE:
            sys.exit(f"{url} does not answer in time; the last that it said: {said}")
        time.sleep(PAUSE_SECONDS)


def main() -> None:
    """Post, read back, find in the archive."""
    key = f"helm-test-{os.environ['HOSTNAME']}-{time.time_ns()}"
    headers = {"Content-Type": "application/json", "Idempotency-Key": key, **token("write")}
    posted = json.loads(ask(f"{API}/api/usages", headers, json.dumps(USAGE).encode()))["id"]
    print(f"posted usage {posted}", flush=True)  # noqa: T201
    read = json.loads(ask(f"{API}/api/usages/{posted}", token("read")))
    # An id is (seq - 1) * partitions + partition + 1.
    seq, partition = (posted - 1) // PARTITIONS + 1, (posted - 1) % PARTITIONS
    door = FLUSHERS.replace("{partition}", str(partition))
    archived = json.loads(ask(f"{door}/usages/{seq}", {}))
    if not read["usage"] == archived["usage"] == USAGE or archived["id"] != posted:
        sys.exit(f"posted {USAGE}, read {read}, archived {archived}")
    print(f"usage {posted} is in the archive of partition {partition}")  # noqa: T201


main()
