"""POST /api/usages: accepted bodies, their answers, and the stored usages."""

import gzip
import json
import subprocess
from functools import partial
from typing import Any
from urllib.parse import urlencode

import pytest

from testkit.api_client import (
    BODY,
    USAGE,
    check_nothing_stored,
    check_problem,
    check_stored,
    fetch_count,
    send,
)
from testkit.http1 import fetch
from testkit.processes import Stack
from testkit.servers import Server
from tests.conftest import Stacks
from tests.service.conftest import StartApi

CURL_DATA = (
    '{"patientId":"100","timestamp":"Tue Nov 01 2016 09:11:51 GMT-0500 (CDT)",'
    '"medication":"Albuterol"}'
)


def curl(*arguments: str) -> str:
    """Run the real curl and return what it prints."""
    run = subprocess.run(
        ["curl", "-sS", *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    return run.stdout


def stored_usage(port: int, number: int) -> Any:
    """Return a usage as it is stored."""
    answer = fetch(port, f"/api/usages/{number}")
    assert answer.status == 200, answer
    return answer.json()["usage"]


def test_the_contracts_curl_line_is_answered_with_id_and_location(contract: Stack) -> None:
    url = f"http://localhost:{contract.port}/api/usages"
    output = curl(
        "-i", "-X", "POST", "-H", "Content-Type: application/json", "--data", CURL_DATA, url
    )
    head, _, body = output.partition("\n\n")
    assert head.startswith("HTTP/1.1 201 ")
    number = json.loads(body)["id"]
    assert body == f'{{"id":{number}}}'
    assert f"\nlocation: /api/usages/{number}" in head.lower()
    assert stored_usage(contract.port, number) == json.loads(CURL_DATA)


def test_the_first_ids_of_an_installation_are_1_2_3(stacks: Stacks, valkey: Server) -> None:
    stack = stacks(valkey)
    assert [check_stored(send(stack.port, USAGE)) for _ in range(3)] == [1, 2, 3]
    assert send(stack.port, [USAGE] * 3, "/api/usages/batch").json() == {"ids": [4, 5, 6]}
    assert check_stored(send(stack.port, USAGE)) == 7


def test_curls_globbing_of_the_query_string_posts_each_time(contract: Stack) -> None:
    before = fetch_count(contract.port)
    url = f"http://localhost:{contract.port}/api/usages?[1-1000]"
    json_type = "Content-Type: application/json"
    output = curl("-X", "POST", "-H", json_type, "--data", CURL_DATA, "-w", "\n", url)
    ids = [json.loads(line)["id"] for line in output.split()]
    assert ids == list(range(before + 1, before + 1001))


def test_brackets_in_the_query_string_are_ignored(contract: Stack) -> None:
    url = f"http://localhost:{contract.port}/api/usages?[1-1000]&a=%ff"
    assert "id" in json.loads(curl("-g", "--data", CURL_DATA, url))


def test_a_trailing_slash_is_the_same_path(contract: Stack) -> None:
    check_stored(send(contract.port, USAGE, "/api/usages/"))


def test_a_plain_curl_data_is_read_as_json(contract: Stack) -> None:
    """By default curl labels every body as a form."""
    output = curl("--data", CURL_DATA, f"http://localhost:{contract.port}/api/usages")
    assert stored_usage(contract.port, json.loads(output)["id"]) == json.loads(CURL_DATA)


def test_every_request_of_ab_without_a_content_type_is_answered(
    contract: Stack, tmp_path: Any
) -> None:
    (tmp_path / "data.json").write_text(CURL_DATA)
    command = ["ab", "-q", "-l", "-c", "20", "-n", "400", "-p", str(tmp_path / "data.json")]
    run = subprocess.run(
        [*command, f"http://localhost:{contract.port}/api/usages"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = {" ".join(line.split()) for line in run.stdout.splitlines()}
    assert {"Complete requests: 400", "Failed requests: 0"} <= lines, run.stdout
    assert not any(line.startswith("Non-2xx") for line in lines), run.stdout


@pytest.mark.parametrize("patient", ["100", 100, "x" * 128, "ä€😀", 0, -1, 2**53 - 1])
def test_a_patient_id_is_stored_as_it_was_sent(contract: Stack, patient: str | int) -> None:
    number = check_stored(send(contract.port, USAGE | {"patientId": patient}))
    assert stored_usage(contract.port, number) == USAGE | {"patientId": patient}


@pytest.mark.parametrize(
    "timestamp",
    [
        "Tue Nov 01 2016 09:11:51 GMT-0500 (CDT)",
        "Tue Nov 1 2016 09:11:51 GMT-0500",
        "2016-11-01T09:11:51.25-05:00",
        "2016-11-01 09:11:51-0500[America/Chicago]",
        "Tue, 01 Nov 2016 14:11:51 GMT",
        "Tue, 1 Nov 2016 14:11:51 GMT",
        1478009511000,
    ],
)
def test_each_form_of_a_timestamp_is_stored_as_it_was_sent(
    contract: Stack, timestamp: str | int
) -> None:
    number = check_stored(send(contract.port, USAGE | {"timestamp": timestamp}))
    assert stored_usage(contract.port, number)["timestamp"] == timestamp


def test_whole_numbers_are_stored_as_integers(contract: Stack) -> None:
    body = b'{"patientId":1e2,"timestamp":1.478009511e12,"medication":"a","x":1.0}'
    number = check_stored(send(contract.port, body))
    answer = fetch(contract.port, f"/api/usages/{number}")
    expected = b'"usage":{"patientId":100,"timestamp":1478009511000,"medication":"a","x":1.0}'
    assert expected in answer.body


@pytest.mark.parametrize("timestamp", [1478009511, 1478009511000000, "1970-01-01T00:00:12Z"])
def test_an_implausible_time_is_stored_with_a_warning(
    contract: Stack, timestamp: str | int
) -> None:
    api = contract.apis[0]
    count = partial(api.read_metric, "busyapi_implausible_times_total")
    before = count()
    answer = send(contract.port, USAGE | {"timestamp": timestamp})
    number = check_stored(answer)
    assert answer.headers["usage-warning"] == "implausible-timestamp"
    assert stored_usage(contract.port, number)["timestamp"] == timestamp
    assert count() == before + 1
    assert "usage-warning" not in send(contract.port, USAGE).headers
    batch = [USAGE, USAGE | {"timestamp": timestamp}, USAGE | {"timestamp": timestamp}]
    answer = send(contract.port, batch, "/api/usages/batch")
    assert answer.headers["usage-warning"] == "implausible-timestamp;count=2;first=1"
    assert count() == before + 3


def test_other_members_are_stored_at_any_depth(contract: Stack) -> None:
    other: dict[str, Any] = {
        "device": {"model": "β", "readings": [1, -2.5e-3, None, True, {"": []}]},
        "zero\u0000newline\n": "\u2028",
    }
    number = check_stored(send(contract.port, USAGE | other))
    usage = stored_usage(contract.port, number)
    assert usage == USAGE | other
    assert list(usage) == [*USAGE, *other], "members changed their order"


def test_form_fields_are_members(contract: Stack) -> None:
    form = urlencode(USAGE | {"note": "a b&c=ä"}).encode()
    answer = send(contract.port, form, content_type="application/x-www-form-urlencoded")
    assert stored_usage(contract.port, check_stored(answer)) == USAGE | {"note": "a b&c=ä"}


def test_curls_urlencoded_fields_are_members(contract: Stack) -> None:
    fields = [word for name in USAGE for word in ("--data-urlencode", f"{name}={USAGE[name]}")]
    output = curl(*fields, f"http://localhost:{contract.port}/api/usages")
    assert stored_usage(contract.port, json.loads(output)["id"]) == USAGE


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/octet-stream", "application/json; charset=utf-8"]
)
def test_a_body_that_starts_with_a_brace_is_json_whatever_its_type(
    contract: Stack, content_type: str
) -> None:
    check_stored(send(contract.port, USAGE, content_type=content_type))


def test_a_gzip_body_is_stored(contract: Stack) -> None:
    answer = send(contract.port, gzip.compress(BODY), content_encoding="gzip")
    assert stored_usage(contract.port, check_stored(answer)) == USAGE


def test_lenient_validation_accepts_any_object(contract: Stack, start_api: StartApi) -> None:
    lenient = start_api(BUSYAPI_VALIDATION="lenient")
    for usage in ({}, {"patientId": None}, {"anything": [1]}):
        assert stored_usage(contract.port, check_stored(send(lenient.port, usage))) == usage
        with check_nothing_stored(contract.port):
            check_problem(send(contract.port, usage), 422)
    with check_nothing_stored(contract.port):
        check_problem(send(lenient.port, [USAGE]), 400)
