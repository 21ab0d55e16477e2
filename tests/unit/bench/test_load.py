import asyncio
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from bench import noop
from busyapi.api import app
from busyapi.decode.body import read_batch, read_single
from busyapi.decode.incremental import run_to_completion
from busyapi.web import listener
from perf import wrk
from perf.load import BATCHES, DEPLOYED, FORWARDED_SINGLE, SINGLE, Load


def test_the_single_usage_is_valid() -> None:
    body = SINGLE.body.encode()
    assert json.loads(
        run_to_completion(read_single(body, "application/json", "", strict=True, max_bytes=999))
    )


def test_a_batch_holds_as_many_usages_as_are_counted_for_it() -> None:
    limits = {"max_bytes": 99_999, "max_items": 999, "max_item_bytes": 999}
    body = BATCHES.body.encode()
    work = read_batch(body, "application/json", "", strict=True, **limits)
    lines = run_to_completion(work).lines
    assert len(lines) == BATCHES.usages == 100


@pytest.mark.parametrize("load", [SINGLE, BATCHES, DEPLOYED])
def test_the_script_holds_the_body_unchanged(load: Load) -> None:
    match = re.search(r"^wrk\.body = \[==\[(.*?)\]==\]$", load.script(), re.MULTILINE)
    assert match
    assert match[1] == load.body


def test_the_noop_is_configured_like_the_api() -> None:
    assert (noop.LISTEN_BACKLOG, noop.IDLE_SECONDS) == (
        listener.LISTEN_BACKLOG,
        app.KEEP_ALIVE_SECONDS,
    )


async def record_requests(load: Load, folder: Path) -> list[tuple[dict[str, str], str]]:
    """Run wrk with a load for a second, and return headers and body of each request."""
    requests = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                _, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = dict(line.split(": ", 1) for line in lines if line)
                body = await reader.readexactly(int(headers["Content-Length"]))
                requests.append((headers, body.decode()))
                writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        argv = wrk.command(load, load.write_script(folder), origin, 1, 2)
        await asyncio.to_thread(wrk.run, argv, folder / "wrk.log", 1)
    return requests


async def test_forwarded_requests_differ_in_what_names_request_and_client(tmp_path: Path) -> None:
    requests = (await record_requests(FORWARDED_SINGLE, tmp_path))[:1000]
    assert len(requests) > 100
    assert {body for _, body in requests} == {SINGLE.body}
    names, *others = [list(headers) for headers, _ in requests]
    assert len(names) == 14
    assert all(other == names for other in others)
    for name in ("Traceparent", "X-Forwarded-For", "X-Real-Ip", "X-Request-Id"):
        assert len({headers[name] for headers, _ in requests}) > 0.99 * len(requests)


async def test_requests_as_deployed_have_a_credential_and_many_patients(tmp_path: Path) -> None:
    load = replace(DEPLOYED, authorization="Bearer token")
    requests = (await record_requests(load, tmp_path))[:1000]
    assert {headers["Authorization"] for headers, _ in requests} == {"Bearer token"}
    usages = [json.loads(body) for _, body in requests]
    assert len({usage.pop("patientId") for usage in usages}) > 0.9 * len(usages)
    single = json.loads(SINGLE.body)
    del single["patientId"]
    assert usages == [single] * len(usages)
