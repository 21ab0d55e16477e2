"""A real Prometheus that scrapes a stack every second and evaluates the chart's rules."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlencode

import yaml

from testkit.child_process import Child
from testkit.http1 import fetch
from testkit.ports import reserve_port
from testkit.processes import Api, Process
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
    """Return the chart's rules for the release of `make_target_labels`.

    Raises:
        ValueError: the file has an unknown token.
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
    """One sample of a query's result."""

    labels: dict[str, str]
    value: float


class Scraped(Protocol):
    """A `Stack`, or other processes to scrape."""

    @property
    def processes(self) -> Sequence[Process]:
        """All processes."""


class Targets(NamedTuple):
    """Processes that are scraped without a stack, or beside one."""

    processes: Sequence[Process]


class Prometheus(Child):
    """One server on a reserved port, with its data in a folder."""

    def __init__(
        self, folder: Path, scraped: Scraped, rules: Mapping[str, Any] | None = None
    ) -> None:
        if not PROGRAM.exists():
            raise RuntimeError(f"{PROGRAM} is missing: run .ci/system-packages")
        folder.mkdir(parents=True, exist_ok=True)
        self.port = reserve_port()
        config = folder / "prometheus.yml"
        paths = ["rules.yml"] if rules else []
        (folder / "rules.yml").write_text(yaml.safe_dump(dict(rules or {"groups": []})))
        config.write_text(yaml.safe_dump({**make_scrape_config(scraped), "rule_files": paths}))
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
        wait_until(
            lambda: self.check_alive() and self._is_ready(), f"{self} to be ready", seconds=30
        )
        wait_until(self._are_all_up, f"{self} to scrape\n{self.tail()}", seconds=20)

    def _is_ready(self) -> bool:
        try:
            return fetch(self.port, "/-/ready").status == 200
        except OSError:
            return False

    def _are_all_up(self) -> bool:
        samples = self.query("up")
        return bool(samples) and all(sample.value == 1 for sample in samples)

    def ask(self, path: str, **parameters: str) -> Any:
        """Call the HTTP API, and return the data.

        Raises:
            ValueError: Prometheus refuses, with this message.
        """
        answer = fetch(self.port, f"/api/v1/{path}?{urlencode(parameters)}").json()
        if answer["status"] != "success":
            raise ValueError(answer["error"])
        return answer["data"]

    def query(self, expression: str, moment: float | None = None) -> list[Sample]:
        """Evaluate an expression, now or at a moment. A scalar is a sample without labels."""
        at = {} if moment is None else {"time": str(moment)}
        data = self.ask("query", query=expression, **at)
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]))]
        return [Sample(series["metric"], float(series["value"][1])) for series in data["result"]]

    def firing(self) -> set[str]:
        """Return the names of firing alerts. A burn-rate alert is also there as `name/window`."""
        firing = [alert["labels"] for alert in self.alerts() if alert["state"] == "firing"]
        burns = {f"{labels['alertname']}/{labels['long']}" for labels in firing if "long" in labels}
        return burns | {labels["alertname"] for labels in firing}

    def alerts(self) -> list[dict[str, Any]]:
        """Return all firing and pending alerts."""
        alerts: list[dict[str, Any]] = self.ask("alerts")["alerts"]
        return alerts

    def wait_until_firing(self, *names: str, seconds: float = 30.0) -> None:
        """Wait until each of these alerts has fired, not necessarily at the same time.

        Raises:
            TimeoutError: one did not fire.
        """
        left = set(names)

        def have_fired() -> bool:
            left.difference_update(self.firing())
            return not left

        try:
            wait_until(have_fired, "alerts", seconds=seconds, every=0.2)
        except TimeoutError:
            raise TimeoutError(
                f"after {seconds:g} s {left} do not fire: {self._describe_alerts()}"
            ) from None

    def wait_until_resolved(self, *names: str, seconds: float = 30.0) -> None:
        """Wait until none of these alerts fires.

        Raises:
            TimeoutError: one still fires.
        """
        wait_until(
            lambda: not self.firing() & set(names),
            f"none of {names} to fire",
            seconds=seconds,
            every=0.2,
        )

    def _describe_alerts(self) -> str:
        states = ({**alert["labels"], "state": alert["state"]} for alert in self.alerts())
        return json.dumps(list(states))


def make_scrape_config(scraped: Scraped) -> dict[str, Any]:
    """Return a configuration that matches the chart's monitors on a cluster."""
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "scrape_configs": [
            {
                "job_name": "busyapi",
                "static_configs": list(_targets(scraped)),
            }
        ],
    }


def _targets(scraped: Scraped) -> Iterator[dict[str, Any]]:
    for process in scraped.processes:
        yield {
            "targets": [f"127.0.0.1:{process.scrape_port}"],
            "labels": make_target_labels(process),
        }


def make_target_labels(process: Process) -> dict[str, str]:
    """Return the labels of a target."""
    # On a cluster the lake is in the pod of a flusher.
    role = "api" if isinstance(process, Api) else "flusher"
    return {
        "namespace": NAMESPACE,
        "release": RELEASE,
        "component": role,
        "pod": f"{RELEASE}-{process.name}",
    }
