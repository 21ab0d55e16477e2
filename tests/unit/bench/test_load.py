import json
import re

import pytest

from bench import noop
from busyapi.api import app
from busyapi.decode.body import read_batch, read_single
from busyapi.decode.incremental import run_to_completion
from busyapi.web import listener
from perf.load import BATCHES, SINGLE, Load


def test_the_single_usage_is_valid() -> None:
    body = SINGLE.body.encode()
    assert json.loads(
        run_to_completion(read_single(body, "application/json", "", strict=True, max_bytes=999))
    )


def test_a_batch_holds_as_many_usages_as_are_counted_for_it() -> None:
    limits = {"max_bytes": 99_999, "max_items": 999, "max_item_bytes": 999}
    body = BATCHES.body.encode()
    lines = run_to_completion(read_batch(body, "application/json", "", strict=True, **limits))
    assert len(lines) == BATCHES.usages == 100


@pytest.mark.parametrize("load", [SINGLE, BATCHES])
def test_the_script_holds_the_body_unchanged(load: Load) -> None:
    match = re.search(r"^wrk\.body = \[==\[(.*?)\]==\]$", load.script(), re.MULTILINE)
    assert match
    assert match[1] == load.body


def test_the_noop_is_configured_like_the_api() -> None:
    assert (noop.LISTEN_BACKLOG, noop.IDLE_SECONDS) == (
        listener.LISTEN_BACKLOG,
        app.KEEP_ALIVE_SECONDS,
    )
