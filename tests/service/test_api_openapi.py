"""The service keeps to its description, and the description to the service.

Schemathesis asks from outside: what the description allows, and what it does not. Its checks: no
5xx, no status, content type, header or body that is not described, nothing refused that is
described as good (but for days that no calendar has, and keys used before), nothing taken that is
not, and 405 with Allow for every other method.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sanic import Sanic

from busyapi.api.app import make_app
from busyapi.settings import Settings
from testkit.api_client import USAGE, check_nothing_stored, check_stored, fetch_count, send
from testkit.http1 import fetch
from testkit.processes import Api, Stack
from tests.service.conftest import Apis

Description = dict[str, Any]

CONFIG = """\
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "404", "422"]
"""
EXAMPLES = 10
"""For each operation and phase."""
ONCE = pytest.mark.parametrize("contract", ["on"], indirect=True)
"""It is the checker that is tried, not the service."""


def described(port: int) -> Description:
    """Return the description of a running process."""
    said: Description = fetch(port, "/openapi.json").json()
    return said


def without_keys(description: Description) -> Description:
    """Leave Idempotency-Key out: a bad or a known one would refuse each body before it is read."""
    for path in ("/api/usages", "/api/usages/batch"):
        key, request = description["paths"][path]["post"]["parameters"]
        assert key == {"$ref": "#/components/parameters/IdempotencyKey"}
        description["paths"][path]["post"]["parameters"] = [request]
    return description


def schemathesis(
    folder: Path, description: Description, port: int, *options: str
) -> subprocess.CompletedProcess[str]:
    """Hold a running process to a description; exit code 1 says that something was found."""
    (folder / "schemathesis.toml").write_text(CONFIG)
    (folder / "openapi.json").write_text(json.dumps(description))
    program = str(Path(sys.executable).with_name("schemathesis"))
    always = ["--no-color", "--seed", "1", "--max-examples", str(EXAMPLES)]
    run = subprocess.run(
        [program, "run", "openapi.json", "--url", f"http://127.0.0.1:{port}", *always, *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert run.returncode in {0, 1}, run.stdout + run.stderr
    return run


def answered(api: Api, first_digit: str) -> float:
    """Return how many answers of a class of statuses a process has given."""
    return sum(
        api.read_metric("busyapi_requests_total", status=f"{first_digit}{rest:02}")
        for rest in range(100)
    )


def test_every_answer_is_as_described_and_bad_data_is_refused(
    contract: Stack, beside: Apis, tmp_path: Path
) -> None:
    api = beside()
    before = fetch_count(contract.port)
    options = ("--phases", "examples,coverage,fuzzing")
    run = schemathesis(tmp_path, without_keys(described(api.port)), api.port, *options)
    assert run.returncode == 0, run.stdout
    assert fetch_count(contract.port) > before + EXAMPLES / 2, "hardly anything was taken"
    assert answered(api, "5") == 0


def test_bad_data_is_not_stored(contract: Stack, beside: Apis, tmp_path: Path) -> None:
    api = beside()
    # The other phases send good data too: the examples, and JSON under other content types.
    options = ("--mode", "negative", "--phases", "fuzzing")
    with check_nothing_stored(contract.port):
        run = schemathesis(tmp_path, without_keys(described(api.port)), api.port, *options)
    assert run.returncode == 0, run.stdout
    refused = answered(api, "4")
    assert refused > 2 * EXAMPLES, f"only {refused} requests were refused"
    assert answered(api, "5") == 0


@pytest.mark.mutants
@ONCE
def test_a_service_that_takes_what_its_description_forbids_is_found(
    contract: Stack, beside: Apis, tmp_path: Path
) -> None:
    lenient = beside(BUSYAPI_VALIDATION="lenient")
    before = fetch_count(contract.port)
    options = ("--mode", "negative", "--phases", "coverage", "--include-operation-id", "postUsage")
    run = schemathesis(tmp_path, without_keys(described(contract.port)), lenient.port, *options)
    assert run.returncode == 1, run.stdout
    assert "ST201 Schema-violating request accepted" in run.stdout, run.stdout
    assert fetch_count(contract.port) > before


@pytest.mark.mutants
@ONCE
def test_a_description_that_is_wrong_is_found(contract: Stack, tmp_path: Path) -> None:
    wrong = described(contract.port)
    paths = wrong["paths"]
    counted = paths["/api/usages/count"]["get"]["responses"]["200"]["content"]["application/json"]
    counted["schema"]["properties"]["archived"] = {"type": "string"}
    del paths["/api/usages/{id}"]["get"]["responses"]["404"]
    live = paths["/livez"]["get"]["responses"]["200"]
    live["content"] = {"application/json": live["content"]["text/plain"]}
    options = ("--phases", "coverage", "--include-path-regex", "count|livez|{id}")
    run = schemathesis(tmp_path, wrong, contract.port, *options)
    assert run.returncode == 1, run.stdout
    for finding in (
        "ST103 Undocumented status code",
        "ST105 Undocumented Content-Type",
        "ST108 Response violates schema",
    ):
        assert finding in run.stdout, run.stdout


@pytest.fixture
def app() -> Iterator[Sanic[Any, Any]]:
    """The application as it is put together, not started."""
    service: Any = SimpleNamespace(settings=Settings(), cors=None)
    made = make_app(service)
    yield made
    Sanic.unregister_app(made)


def test_every_route_is_described_and_everything_described_is_a_route(
    contract: Stack, app: Sanic[Any, Any]
) -> None:
    routes = {
        (f"/{route.path}".replace("<usage:int>", "{id}"), method.lower())
        for route in app.router.routes
        for method in route.methods
    }
    paths = described(contract.port)["paths"]
    assert routes == {(path, method) for path in paths for method in paths[path]}


def test_every_answer_is_described_with_the_id_of_its_request(contract: Stack) -> None:
    said = described(contract.port)
    answers = [
        said["components"]["responses"][answer["$ref"].rpartition("/")[2]]
        if "$ref" in answer
        else answer
        for operations in said["paths"].values()
        for operation in operations.values()
        for answer in operation["responses"].values()
    ]
    named = {"$ref": "#/components/headers/RequestId"}
    assert [each["headers"]["X-Request-ID"] for each in answers] == [named] * len(answers)


def test_the_description_is_of_the_process_that_gives_it(beside: Apis, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("write a\nread b\n")
    api = beside(
        BUSYAPI_VALIDATION="lenient",
        BUSYAPI_MAX_BATCH_ITEMS="7",
        BUSYAPI_TOKENS_FILE=str(tmp_path / "tokens"),
        BUSYAPI_RATE_LIMIT="0.01",
    )
    said = described(api.port)
    assert said["components"]["schemas"]["Usage"] == {"type": "object"}
    batch = said["paths"]["/api/usages/batch"]["post"]["requestBody"]["content"]
    assert batch["application/json"]["schema"]["maxItems"] == 7
    guarded = {
        (path, method)
        for path, methods in said["paths"].items()
        for method, operation in methods.items()
        if "security" in operation
    }
    asked = [("/api/usages", "post"), ("/api/usages/batch", "post"), ("/api/usages/{id}", "get")]
    assert guarded == {*asked, ("/api/usages/{id}", "head")}
    for path, method in asked:
        # A wrong token, one without the right, and one right thing too much.
        found = set()
        for token in ("x", "b" if method == "post" else "a", *("ab" * 3)):
            answer = fetch(
                api.port,
                path.replace("{id}", "1"),
                method=method.upper(),
                body=b"{}" if method == "post" else None,
                headers={"authorization": f"Bearer {token}"},
            )
            found.add(str(answer.status))
        assert {"401", "403", "429"} <= found <= said["paths"][path][method]["responses"].keys()


def test_the_examples_of_the_description_are_taken(contract: Stack) -> None:
    schemas = described(contract.port)["components"]["schemas"]
    for usage in schemas["Usage"]["examples"]:
        check_stored(send(contract.port, usage))
    for form in schemas["TimestampText"]["anyOf"]:
        for timestamp in form["examples"]:
            check_stored(send(contract.port, USAGE | {"timestamp": timestamp}))
