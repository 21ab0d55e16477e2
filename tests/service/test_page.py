"""The landing page, in a real browser."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from busyapi.api.pages import SECURITY_HEADERS, render_landing_page
from busyapi.settings import Settings
from testkit.browser import Browser
from testkit.http1 import fetch
from testkit.ports import reserve_port
from testkit.processes import Api, Stack, answers_ok
from testkit.servers import Server
from testkit.waiting import wait_until

MAX_BYTES = 8192
TOKEN = "device-3f9c0d"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("page")
    with Server(folder / "valkey") as server, Stack(folder / "stack", server) as stack:
        yield stack


@pytest.fixture
def page(stack: Stack) -> str:
    return f"http://localhost:{stack.port}/"


def make_api(stack: Stack, folder: Path, **settings: str) -> Api:
    """Return another API process that is not started yet."""
    port = reserve_port()
    return Api(folder, f"api-{port}", port, {**(stack.apis[0].environment or {}), **settings})


def wait_for_text(browser: Browser, selector: str, pattern: str) -> re.Match[str]:
    """Wait until an element's text matches a pattern, and return the match."""
    matches: list[re.Match[str]] = []

    def search() -> bool:
        matches.extend(re.finditer(pattern, browser.text(selector)))
        return bool(matches)

    try:
        wait_until(search, f"{pattern!r} in {selector}")
    except TimeoutError:
        pytest.fail(f"{selector} has no {pattern!r}: {browser.text(selector)!r}")
    return matches[0]


def run_curl(line: str, **environment: str) -> Any:
    """Run a curl line in a shell and return its output."""
    run = subprocess.run(
        ["sh", "-c", line],
        check=True,
        capture_output=True,
        text=True,
        timeout=20,
        env={**os.environ, **environment},
    )
    return json.loads(run.stdout)


@pytest.mark.parametrize("settings", [Settings(), Settings(tokens_file="tokens")])
def test_page_is_small_and_fully_rendered(settings: Settings) -> None:
    page = render_landing_page(settings)
    assert len(page.encode()) <= MAX_BYTES
    assert "{{" not in page
    assert not re.search(r"(?:src|href|action)=\"(?!/|data:)", page), "it loads from another origin"


def test_page_is_served_under_its_policy(stack: Stack) -> None:
    reply = fetch(stack.port, "/", headers={"accept": "text/html"})
    assert (
        SECURITY_HEADERS.items()
        <= {name.title(): value for name, value in reply.headers.items()}.items()
    )


def test_figures_are_shown_and_grow_with_posts(stack: Stack, browser: Browser, page: str) -> None:
    browser.open(page)
    wait_for_text(browser, "#ready", "^Ready.$")
    before = int(wait_for_text(browser, "#count", r"^\d+$")[0])
    browser.click("button")
    wait_for_text(browser, "#count", f"^{before + 1}$")
    stack.wait_until_archived()
    wait_for_text(browser, "#archived", f"^{before + 1}$")
    wait_for_text(browser, "#buffered", "^0$")
    # The page polls every second, so by now there is a rate to draw.
    wait_for_text(browser, "#rate", r"^[\d.]+$")
    wait_for_text(browser, "#peak", r"^peak [\d.]+$")
    assert browser.evaluate("document.querySelector('#line').points.length") > 0
    assert browser.text("#state") == ""
    assert browser.problems == []


def test_form_posts_and_shows_the_id_the_answer_and_a_curl_line_that_works(
    stack: Stack, browser: Browser, page: str
) -> None:
    browser.open(page)
    browser.type("[name=patientId]", 'it\'s "100"')
    browser.click("button")
    number = int(wait_for_text(browser, "#answer", r'201 Created\n\{"id":(\d+)\}')[1])
    usage = fetch(stack.port, f"/api/usages/{number}").json()["usage"]
    assert usage["patientId"] == 'it\'s "100"'
    link = browser.evaluate("document.querySelector('#answer a').getAttribute('href')")
    assert link == f"/api/usages/{number}"
    again = run_curl(browser.text("#curl"))
    assert fetch(stack.port, f"/api/usages/{again['id']}").json()["usage"] == usage
    browser.type("[name=timestamp]", "yesterday")
    browser.click("button")
    wait_for_text(browser, "#answer", r"^422 .*\n.*/timestamp")
    assert not browser.evaluate("!!document.querySelector('#answer a')")


def test_table_has_every_operation_and_links_only_what_an_ingress_routes(
    stack: Stack, browser: Browser, page: str
) -> None:
    browser.open(page)
    rows = browser.evaluate("[...document.querySelectorAll('tr')].map(r => r.innerText)")
    paths = fetch(stack.port, "/openapi.json").json()["paths"]
    for path, operations in paths.items():
        for method in set(operations) - {"head"}:
            (row,) = [row for row in rows if row.startswith(f"{method.upper()} {path}\t")]
            assert operations[method]["summary"] in row
    links = browser.evaluate("[...document.links].map(a => a.getAttribute('href'))")
    assert "/openapi.json" in links
    for link in links:
        assert link.startswith(("/api/", "/openapi.json")), "an Ingress does not route this link"
        assert fetch(stack.port, link).status == 200


@pytest.mark.parametrize("dark", [False, True])
def test_page_fits_a_phone(browser: Browser, page: str, *, dark: bool) -> None:
    browser.open(page, width=390, dark=dark)
    wait_for_text(browser, "#count", r"^\d+$")
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390
    colour = browser.evaluate("getComputedStyle(document.documentElement).colorScheme")
    assert colour == "light dark"
    assert browser.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") == dark


def test_without_javascript_the_form_posts_and_the_curl_line_works(
    stack: Stack, browser: Browser, page: str
) -> None:
    browser.open(page, javascript=False)
    assert "Figures need JavaScript" in browser.evaluate("document.body.innerText")
    assert browser.evaluate("document.querySelector('dl').checkVisibility()") is False
    first = run_curl(browser.text("#curl").replace("localhost:3000", f"localhost:{stack.port}"))
    browser.click("button")
    assert wait_for_text(browser, "body", r'^\{"id":(\d+)\}$')[1] == str(first["id"] + 1)


def test_token_is_required_used_and_not_stored(
    stack: Stack, browser: Browser, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"write {TOKEN}\n")
    with make_api(stack, tmp_path, BUSYAPI_TOKENS_FILE=str(tokens)) as api:
        browser.open(f"http://localhost:{api.port}/")
        assert "token (required here, and not kept)" in browser.text("form")
        browser.type("[name=token]", "wrong")
        browser.click("button")
        wait_for_text(browser, "#answer", "^401 ")
        browser.type("[name=token]", TOKEN)
        browser.click("button")
        number = int(wait_for_text(browser, "#answer", r'201 Created\n\{"id":(\d+)\}$')[1])
        line = browser.text("#curl")
        assert TOKEN not in line
        assert run_curl(line, TOKEN=TOKEN)["id"] == number + 1
        browser.open(f"http://localhost:{api.port}/")
        storage = (
            "[fields.token.value, document.cookie, localStorage.length, sessionStorage.length]"
        )
        assert browser.evaluate(storage) == ["", "", 0, 0]


def test_page_of_a_process_that_is_not_ready_shows_the_reason(
    stack: Stack, browser: Browser, tmp_path: Path
) -> None:
    api = make_api(stack, tmp_path, BUSYAPI_DURABILITY="replicated")
    try:
        api.spawn()
        wait_until(lambda: api.check_alive() and answers_ok(api.port, "/livez"), f"{api}")
        browser.open(f"http://localhost:{api.port}/")
        wait_for_text(browser, "#ready", "^Not ready: .*replica")
    finally:
        api.close()
