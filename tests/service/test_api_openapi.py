"""The service and its OpenAPI description agree.

Schemathesis sends requests that the description allows, and others. It checks that there is no 5xx
and no undescribed status, content type, header or body; that no valid request is refused (except
for dates that do not exist, and keys used before) and no invalid one accepted; and that every other
method gets 405 with Allow.
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
from tests.service.conftest import StartApi

Description = dict[str, Any]

CONFIG = """\
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "404", "422"]
"""
EXAMPLES = 10
"""Examples for each operation and phase."""
ONCE = pytest.mark.parametrize("contract", ["on"], indirect=True)
"""These tests check the checker, not the service, so one stack is enough."""


def fetch_description(port: int) -> Description:
    """Return the description of a running process."""
    description: Description = fetch(port, "/openapi.json").json()
    return description


def without_keys(description: Description) -> Description:
    """Remove Idempotency-Key: a bad or reused key would refuse each body before it is read."""
    for path in ("/api/usages", "/api/usages/batch"):
        key, request = description["paths"][path]["post"]["parameters"]
        assert key == {"$ref": "#/components/parameters/IdempotencyKey"}
        description["paths"][path]["post"]["parameters"] = [request]
    return description


def run_schemathesis(
    folder: Path, description: Description, port: int, *options: str
) -> subprocess.CompletedProcess[str]:
    """Check a running process against a description; exit code 1 means that checks failed."""
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


def count_answers(api: Api, first_digit: str) -> float:
    """Return how many answers of a status class a process has sent."""
    return sum(
        api.read_metric("busyapi_requests_total", status=f"{first_digit}{rest:02}")
        for rest in range(100)
    )


def test_every_answer_is_as_described_and_bad_data_is_refused(
    contract: Stack, start_api: StartApi, tmp_path: Path
) -> None:
    api = start_api()
    before = fetch_count(contract.port)
    options = ("--phases", "examples,coverage,fuzzing")
    run = run_schemathesis(tmp_path, without_keys(fetch_description(api.port)), api.port, *options)
    assert run.returncode == 0, run.stdout
    assert fetch_count(contract.port) > before + EXAMPLES / 2, "hardly anything was stored"
    assert count_answers(api, "5") == 0


def test_bad_data_is_not_stored(contract: Stack, start_api: StartApi, tmp_path: Path) -> None:
    api = start_api()
    # The other phases also send valid data: the examples, and JSON under other content types.
    options = ("--mode", "negative", "--phases", "fuzzing")
    with check_nothing_stored(contract.port):
        run = run_schemathesis(
            tmp_path, without_keys(fetch_description(api.port)), api.port, *options
        )
    assert run.returncode == 0, run.stdout
    refused = count_answers(api, "4")
    assert refused > 2 * EXAMPLES, f"only {refused} requests were refused"
    assert count_answers(api, "5") == 0


@pytest.mark.mutants
@ONCE
def test_a_service_that_accepts_invalid_data_is_caught(
    contract: Stack, start_api: StartApi, tmp_path: Path
) -> None:
    lenient = start_api(BUSYAPI_VALIDATION="lenient")
    before = fetch_count(contract.port)
    options = ("--mode", "negative", "--phases", "coverage", "--include-operation-id", "postUsage")
    run = run_schemathesis(
        tmp_path, without_keys(fetch_description(contract.port)), lenient.port, *options
    )
    assert run.returncode == 1, run.stdout
    assert "ST201 Schema-violating request accepted" in run.stdout, run.stdout
    assert fetch_count(contract.port) > before


@pytest.mark.mutants
@ONCE
def test_a_wrong_description_is_caught(contract: Stack, tmp_path: Path) -> None:
    wrong = fetch_description(contract.port)
    paths = wrong["paths"]
    counted = paths["/api/usages/count"]["get"]["responses"]["200"]["content"]["application/json"]
    counted["schema"]["properties"]["archived"] = {"type": "string"}
    del paths["/api/usages/{id}"]["get"]["responses"]["404"]
    live = paths["/livez"]["get"]["responses"]["200"]
    live["content"] = {"application/json": live["content"]["text/plain"]}
    options = ("--phases", "coverage", "--include-path-regex", "count|livez|{id}")
    run = run_schemathesis(tmp_path, wrong, contract.port, *options)
    assert run.returncode == 1, run.stdout
    for finding in (
        "ST103 Undocumented status code",
        "ST105 Undocumented Content-Type",
        "ST108 Response violates schema",
    ):
        assert finding in run.stdout, run.stdout


@pytest.fixture
def app() -> Iterator[Sanic[Any, Any]]:
    """The application, built but not started."""
    context: Any = SimpleNamespace(settings=Settings(), cors=None)
    application = make_app(context)
    yield application
    Sanic.unregister_app(application)


def test_routes_and_described_operations_are_the_same(
    contract: Stack, app: Sanic[Any, Any]
) -> None:
    routes = {
        (f"/{route.path}".replace("<usage:int>", "{id}"), method.lower())
        for route in app.router.routes
        for method in route.methods
    }
    paths = fetch_description(contract.port)["paths"]
    assert routes == {(path, method) for path in paths for method in paths[path]}


def test_every_answer_is_described_with_the_id_of_its_request(contract: Stack) -> None:
    description = fetch_description(contract.port)
    answers = [
        description["components"]["responses"][answer["$ref"].rpartition("/")[2]]
        if "$ref" in answer
        else answer
        for operations in description["paths"].values()
        for operation in operations.values()
        for answer in operation["responses"].values()
    ]
    header = {"$ref": "#/components/headers/RequestId"}
    assert [answer["headers"]["X-Request-ID"] for answer in answers] == [header] * len(answers)


def test_the_description_reflects_the_settings_of_its_process(
    start_api: StartApi, tmp_path: Path
) -> None:
    (tmp_path / "tokens").write_text("write a\nread b\n")
    api = start_api(
        BUSYAPI_VALIDATION="lenient",
        BUSYAPI_MAX_BATCH_ITEMS="7",
        BUSYAPI_TOKENS_FILE=str(tmp_path / "tokens"),
        BUSYAPI_RATE_LIMIT="0.01",
    )
    description = fetch_description(api.port)
    assert description["components"]["schemas"]["Usage"] == {"type": "object"}
    batch = description["paths"]["/api/usages/batch"]["post"]["requestBody"]["content"]
    assert batch["application/json"]["schema"]["maxItems"] == 7
    guarded = {
        (path, method)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
        if "security" in operation
    }
    operations = [
        ("/api/usages", "get"),
        ("/api/usages", "post"),
        ("/api/usages/batch", "post"),
        ("/api/usages/{id}", "get"),
        ("/api/usages/count", "get"),
    ]
    heads = {(path, "head") for path, method in operations if method == "get"}
    assert guarded == {*operations, *heads}
    for path, method in operations:
        # A wrong token, a token without the right, and requests over the rate.
        statuses = set()
        for token in ("x", "b" if method == "post" else "a", *("ab" * 3)):
            answer = fetch(
                api.port,
                path.replace("{id}", "1"),
                method=method.upper(),
                body=b"{}" if method == "post" else None,
                headers={"authorization": f"Bearer {token}"},
            )
            statuses.add(str(answer.status))
        assert (
            {"401", "403", "429"}
            <= statuses
            <= description["paths"][path][method]["responses"].keys()
        )


def test_the_examples_of_the_description_are_stored(contract: Stack) -> None:
    schemas = fetch_description(contract.port)["components"]["schemas"]
    for usage in schemas["Usage"]["examples"]:
        check_stored(send(contract.port, usage))
    for form in schemas["TimestampText"]["anyOf"]:
        for timestamp in form["examples"]:
            check_stored(send(contract.port, USAGE | {"timestamp": timestamp}))
