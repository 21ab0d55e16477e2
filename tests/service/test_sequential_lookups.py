"""Clients that enumerate ids are counted, in a metric without ids and clients."""

import json
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from busyapi.api.sequential_lookups import FREE_IDS
from testkit.api_client import USAGE, send
from testkit.http1 import fetch
from testkit.processes import Api
from testkit.servers import Server
from tests.conftest import Stacks

IDS = 60
"""Usages that one device has posted. Their ids begin at 1."""
CREDENTIALS: dict[str, dict[str, Any]] = {
    "device": {"scopes": ["write", "read:own"]},
    "program": {"scopes": ["write", "read"]},
    "patient": {"scopes": ["read"], "patient_id": USAGE["patientId"]},
    "stranger": {"scopes": ["read"], "patient_id": "another"},
    "thief": {"scopes": ["read"]},
    "clinic": {"scopes": ["read"]},
    "neighbour": {"scopes": ["read:own", "read:tenant"], "tenant": "north"},
}


def render_table(name: str, members: dict[str, Any]) -> str:
    lines = [f"[tokens.{name}]", f'sha256 = "{sha256(name.encode()).hexdigest()}"']
    return "\n".join([*lines, *(f"{key} = {json.dumps(value)}" for key, value in members.items())])


@pytest.fixture
def api(stacks: Stacks, valkey: Server, tmp_path: Path) -> Api:
    (tmp_path / "salt").write_text("0123456789abcdef" * 4)
    tables = [render_table(name, members) for name, members in CREDENTIALS.items()]
    (tmp_path / "tokens.toml").write_text("\n".join(tables))
    settings = {
        "BUSYAPI_TOKENS_FILE": str(tmp_path / "tokens.toml"),
        "BUSYAPI_WRITER_SALT_FILE": str(tmp_path / "salt"),
        "BUSYAPI_TRUSTED_PROXIES": "127.0.0.0/8",
    }
    (api,) = stacks(valkey, settings=settings).apis
    return api


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {name}"}


def post(api: Api, name: str, usages: int) -> list[int]:
    answer = send(api.port, [USAGE] * usages, "/api/usages/batch", **bearer(name))
    ids: list[int] = answer.json()["ids"]
    return ids


def read(api: Api, name: str, ids: Iterable[int]) -> set[int]:
    """Look up usages and return the statuses."""
    headers = bearer(name)
    return {fetch(api.port, f"/api/usages/{number}", headers=headers).status for number in ids}


def count_lookups(api: Api) -> int:
    return int(api.read_metric("busyapi_sequential_lookups_total"))


def test_only_a_client_that_enumerates_ids_is_counted(api: Api) -> None:
    own = post(api, "device", IDS)
    programs = post(api, "program", IDS)
    assert own == list(range(1, IDS + 1))
    # What a client posted itself, or what its patient's other devices posted.
    assert read(api, "device", own) == {200}
    assert read(api, "program", programs) == {200}
    assert read(api, "patient", own + programs) == {200}
    # One usage of another client that is asked for again and again, and a few others.
    for _ in range(IDS):
        assert read(api, "clinic", [own[0]]) == {200}
    assert read(api, "clinic", own[:FREE_IDS]) == {200}
    assert read(api, "nobody", own) <= {401, 429}
    assert count_lookups(api) == 0
    # From the end, with other lookups in between.
    others = iter(range(10**6, 10**9, 10**6))
    for number in reversed(own):
        assert read(api, "thief", [number]) == {200}
        assert read(api, "thief", [next(others)]) == {404}
    assert count_lookups(api) == IDS - FREE_IDS
    # A credential for own usages only is not shown any, and counted.
    for name in ("neighbour", "stranger"):
        before = count_lookups(api)
        assert read(api, name, own) == {404}
        assert count_lookups(api) == before + IDS - FREE_IDS


def test_clients_without_a_credential_are_counted_by_their_network(
    stacks: Stacks, valkey: Server
) -> None:
    settings = {"BUSYAPI_TRUSTED_PROXIES": "127.0.0.0/8"}
    (api,) = stacks(valkey, settings=settings).apis
    addresses = [f"2001:db8:0:{network}::{host}" for network in range(4) for host in (1, 2)]
    for number in range(1, FREE_IDS // 2 + 1):
        for at, address in enumerate(addresses):
            # The two addresses of a network ask for different ids.
            path = f"/api/usages/{2 * number - at % 2}"
            assert fetch(api.port, path, headers={"x-forwarded-for": address}).status == 404
    assert count_lookups(api) == 0
    headers = {"x-forwarded-for": addresses[0]}
    assert fetch(api.port, f"/api/usages/{2 * FREE_IDS}", headers=headers).status == 404
    assert count_lookups(api) == 1


def test_log_names_the_client_and_no_id(api: Api) -> None:
    own = post(api, "device", IDS)
    read(api, "thief", own)
    (line,) = [
        entry
        for text in api.log.read_text().splitlines()
        if (entry := json.loads(text))["event"] == "sequential_lookup"
    ]
    assert (line["credential"], line["address"]) == ("thief", "127.0.0.1")
    assert line.keys() == {"time", "level", "event", "role", "pod", "credential", "address"}
