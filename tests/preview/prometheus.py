"""A real Prometheus: one of our own that scrapes every second, and the questions to any."""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.support.children import Child
from tests.support.ports import free_port
from tests.support.waiting import wait_until

PROGRAM = Path("/usr/bin/prometheus")
READY_SECONDS = 20.0
ANSWER_SECONDS = 30.0


class Target(NamedTuple):
    """What is scraped, with the labels that the chart's monitors give."""

    port: int
    labels: dict[str, str]


class Series(NamedTuple):
    """One series of an answer."""

    labels: dict[str, str]
    points: list[tuple[float, float]]


class Refused(Exception):
    """Prometheus refuses a query; the message is its own."""


class Prometheus(Child):
    """Debian's, in a folder of its own."""

    def __init__(self, folder: Path, targets: Sequence[Target], rules: Sequence[Path]) -> None:
        if not PROGRAM.exists():
            raise RuntimeError(f"{PROGRAM} is missing: run .ci/system-packages")
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        config = folder / "prometheus.yaml"
        config.write_text(yaml.safe_dump(_config(targets, rules)))
        options = {
            "config.file": config,
            "storage.tsdb.path": folder / "data",
            "web.listen-address": f"127.0.0.1:{self.port}",
        }
        flags = [f"--{name}={value}" for name, value in options.items()]
        super().__init__([PROGRAM, *flags], log=folder / "prometheus.log")

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.spawn()
        wait_until(
            lambda: self.alive() and _answers(f"{self.url}/-/ready"),
            f"{self} to be ready",
            seconds=READY_SECONDS,
        )


def _config(targets: Sequence[Target], rules: Sequence[Path]) -> dict[str, Any]:
    return {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(each.absolute()) for each in rules],
        "scrape_configs": [
            {
                "job_name": "busyapi",
                "static_configs": [
                    {"targets": [f"127.0.0.1:{each.port}"], "labels": each.labels}
                    for each in targets
                ],
            }
        ],
    }


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - http, and ours
            return True
    except OSError:
        return False


def over_time(url: str, query: str, start: float, end: float, step: float) -> list[Series]:
    """Run a query over a range.

    Raises:
        Refused: it does not parse, or asks for too much.
    """
    asked = {"query": query, "start": start, "end": end, "step": step}
    return [
        Series(each["metric"], [(float(at), float(value)) for at, value in each["values"]])
        for each in _result(url, "query_range", asked)
    ]


def newest(url: str, query: str, at: float) -> list[Series]:
    """Run a query at one instant.

    Raises:
        Refused: it does not parse.
    """
    return [
        Series(each["metric"], [(float(each["value"][0]), float(each["value"][1]))])
        for each in _result(url, "query", {"query": query, "time": at})
    ]


def _result(url: str, way: str, asked: dict[str, Any]) -> Any:
    address = f"{url}/api/v1/{way}?{urllib.parse.urlencode(asked)}"
    try:
        with urllib.request.urlopen(address, timeout=ANSWER_SECONDS) as answer:  # noqa: S310
            return json.load(answer)["data"]["result"]
    except urllib.error.HTTPError as error:
        raise Refused(f"{asked['query']}: {error.read().decode()}") from None
