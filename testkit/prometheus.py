"""A real Prometheus that scrapes a stack every second and evaluates the chart's rules."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import yaml

from testkit.child_process import Child
from testkit.http1 import fetch
from testkit.ports import reserve_port
from testkit.processes import Api, Process, Stack
from testkit.waiting import wait_until

PROGRAM = Path("/usr/bin/prometheus")
PROMTOOL = Path("/usr/bin/promtool")

NAMESPACE, RELEASE = "patients", "inhalers"
FLAGS = ("--storage.tsdb.retention.time=1d", "--log.level=warn", "--web.max-connections=32")


RULES = Path(__file__).parents[1] / "charts" / "busyapi" / "files" / "rules.yaml"
TOKENS = {
    "__NAMESPACE__": NAMESPACE,
    "__RELEASE__": RELEASE,
    "__FULLNAME__": RELEASE,
    "__RUNBOOKS__": "docs/runbooks",
}


def chart_rules() -> dict[str, Any]:
    """Return the chart's rules for the release that `scraping` names.

    Raises:
        ValueError: the file has a token that is not replaced here.
    """
    text = RULES.read_text()
    text = text[text.index("groups:") :]
    for token, value in TOKENS.items():
        text = text.replace(token, value)
    if "__" in text:
        raise ValueError(f"{RULES} has an unknown token: {text[text.index('__') :][:40]}")
    rules: dict[str, Any] = yaml.safe_load(text)
    return rules


class Sample(NamedTuple):
    """One series of an answer."""

    labels: dict[str, str]
    value: float


class Prometheus(Child):
    """One server on a free port; its data is in its folder."""

    def __init__(self, folder: Path, stack: Stack, rules: Mapping[str, Any] | None = None) -> None:
        if not PROGRAM.exists():
            raise RuntimeError(f"{PROGRAM} is missing: run .ci/system-packages")
        folder.mkdir(parents=True, exist_ok=True)
        self.port = reserve_port()
        config = folder / "prometheus.yml"
        paths = ["rules.yml"] if rules else []
        (folder / "rules.yml").write_text(yaml.safe_dump(dict(rules or {"groups": []})))
        config.write_text(yaml.safe_dump({**make_scrape_config(stack), "rule_files": paths}))
        super().__init__(
            [
                PROGRAM,
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                *FLAGS,
            ],
            log=folder / "prometheus.log",
        )

    def start(self) -> None:
        """Start it and wait until it has scraped every target once."""
        self.spawn()
        wait_until(lambda: self.check_alive() and self._ready(), f"{self} to be ready", seconds=30)
        wait_until(self._all_up, f"{self} to scrape\n{self.tail()}", seconds=20)

    def _ready(self) -> bool:
        try:
            return fetch(self.port, "/-/ready").status == 200
        except OSError:
            return False

    def _all_up(self) -> bool:
        found = self.query("up")
        return bool(found) and all(each.value == 1 for each in found)

    def ask(self, path: str, **words: str) -> Any:
        """Ask its API.

        Raises:
            ValueError: it refuses; the message is its own.
        """
        said = fetch(self.port, f"/api/v1/{path}?{urlencode(words)}").json()
        if said["status"] != "success":
            raise ValueError(said["error"])
        return said["data"]

    def query(self, expression: str, moment: float | None = None) -> list[Sample]:
        """Evaluate an expression, now or as of a moment; a scalar is a sample without labels."""
        at = {} if moment is None else {"time": str(moment)}
        data = self.ask("query", query=expression, **at)
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]))]
        return [Sample(each["metric"], float(each["value"][1])) for each in data["result"]]

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire; those of a burn also as `name/long window`."""
        firing = [each["labels"] for each in self.alerts() if each["state"] == "firing"]
        burns = {f"{each['alertname']}/{each['long']}" for each in firing if "long" in each}
        return burns | {each["alertname"] for each in firing}

    def alerts(self) -> list[dict[str, Any]]:
        """Return all that fire or are about to."""
        found: list[dict[str, Any]] = self.ask("alerts")["alerts"]
        return found

    def wait_until_firing(self, *names: str, seconds: float = 30.0) -> None:
        """Wait until all of these have fired, each at its own time.

        Raises:
            TimeoutError: one did not.
        """
        left = set(names)

        def seen() -> bool:
            left.difference_update(self.firing())
            return not left

        try:
            wait_until(seen, "alerts", seconds=seconds, every=0.2)
        except TimeoutError:
            raise TimeoutError(f"after {seconds:g} s {left} do not fire: {self._state()}") from None

    def wait_until_resolved(self, *names: str, seconds: float = 30.0) -> None:
        """Wait until none of these fires.

        Raises:
            TimeoutError: one still does.
        """
        wait_until(
            lambda: not self.firing() & set(names),
            f"none of {names} to fire",
            seconds=seconds,
            every=0.2,
        )

    def _state(self) -> str:
        told = ({**each["labels"], "state": each["state"]} for each in self.alerts())
        return json.dumps(list(told))


def make_scrape_config(stack: Stack) -> dict[str, Any]:
    """Make the configuration that the chart's monitors come to on a cluster."""
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "scrape_configs": [
            {
                "job_name": "busyapi",
                "static_configs": list(_targets(stack)),
            }
        ],
    }


def _targets(stack: Stack) -> Iterator[dict[str, Any]]:
    for process in stack.processes:
        yield {
            "targets": [f"127.0.0.1:{process.scrape_port}"],
            "labels": make_target_labels(process),
        }


def make_target_labels(process: Process) -> dict[str, str]:
    """Return the labels of a target."""
    role = "api" if isinstance(process, Api) else "flusher"
    return {
        "namespace": NAMESPACE,
        "release": RELEASE,
        "component": role,
        "pod": f"{RELEASE}-{process.name}",
    }
