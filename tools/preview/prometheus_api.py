"""Queries to a Prometheus."""

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, NamedTuple

ANSWER_SECONDS = 30.0


class Series(NamedTuple):
    """One series of a reply."""

    labels: dict[str, str]
    points: list[tuple[float, float]]


class Refused(Exception):
    """Prometheus refuses a query. The message contains its reply."""


def query_range(url: str, query: str, start: float, end: float, step: float) -> list[Series]:
    """Run a query over a range.

    Raises:
        Refused: it does not parse, or asks for too much.
    """
    options = {"query": query, "start": start, "end": end, "step": step}
    return [
        Series(entry["metric"], [(float(at), float(value)) for at, value in entry["values"]])
        for entry in _result(url, "query_range", options)
    ]


def query_instant(url: str, query: str, at: float) -> list[Series]:
    """Run a query at one instant.

    Raises:
        Refused: it does not parse.
    """
    return [
        Series(entry["metric"], [(float(entry["value"][0]), float(entry["value"][1]))])
        for entry in _result(url, "query", {"query": query, "time": at})
    ]


def _result(url: str, way: str, options: dict[str, Any]) -> Any:
    address = f"{url}/api/v1/{way}?{urllib.parse.urlencode(options)}"
    try:
        with urllib.request.urlopen(address, timeout=ANSWER_SECONDS) as answer:  # noqa: S310
            return json.load(answer)["data"]["result"]
    except urllib.error.HTTPError as error:
        raise Refused(f"{options['query']}: {error.read().decode()}") from None
