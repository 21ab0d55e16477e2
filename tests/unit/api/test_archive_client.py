"""The API's requests to flushers, where nothing answers."""

import subprocess
import sys

LOOKUPS = """
import asyncio, resource
from busyapi.api.archive_client import ArchiveClient, ArchiveUnavailable

async def look_up(client):
    try:
        await client.find_line(0, 1, "request")
    except ArchiveUnavailable:
        print("unavailable")

async def main():
    await asyncio.to_thread(int)
    client = ArchiveClient("http://127.0.0.1:1", 1)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    await look_up(client)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    await look_up(client)
    await client.close()

asyncio.run(main())
"""


def test_a_first_lookup_that_can_open_no_file_is_refused_for_now() -> None:
    run = subprocess.run(
        [sys.executable, "-c", LOOKUPS], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("unavailable\n") == 2
