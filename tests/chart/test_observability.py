"""k8s/observability: the adapter serves the metric of the chart, and the README's commands work."""

import re
import shlex

import helm_python
import yaml

from testkit.chart.rendering import ROOT, Json, find_object, of_kind, render

FOLDER = ROOT / "k8s" / "observability"


def load_adapter() -> Json:
    values: Json = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text())
    return values


def test_adapter_serves_the_metric_that_the_chart_uses() -> None:
    (rule,) = load_adapter()["rules"]["custom"]
    assert load_adapter()["rules"]["default"] is False
    series = rule["seriesQuery"].partition("{")[0]
    name = re.sub(rule["name"]["matches"], rule["name"]["as"].replace("${1}", r"\1"), series)
    values = {"autoscaling": {"targetRequestsPerSecond": 1}}
    (*_, metric) = find_object(render(values), "HorizontalPodAutoscaler", "busyapi")["spec"][
        "metrics"
    ]
    assert name == metric["pods"]["metric"]["name"]
    assert {"namespace", "pod"} == rule["resources"]["overrides"].keys()


def test_rate_window_covers_three_scrapes() -> None:
    (rule,) = load_adapter()["rules"]["custom"]
    window = re.search(r"\[(\d+)s\]", rule["metricsQuery"])
    assert window
    keda = {"enabled": True, "serverAddress": "http://prometheus:9090"}
    scaled = render({"autoscaling": {"enabled": False}, "keda": keda})
    (requests, _) = find_object(scaled, "ScaledObject", "busyapi")["spec"]["triggers"]
    assert window[0] in requests["metadata"]["query"]
    intervals = {
        monitor["spec"][endpoints][0]["interval"]
        for kind, name, endpoints in (
            ("ServiceMonitor", "serviceMonitor", "endpoints"),
            ("PodMonitor", "podMonitor", "podMetricsEndpoints"),
        )
        for monitor in of_kind(render({"metrics": {name: {"enabled": True}}}), kind)
    }
    assert [3 * int(interval.removesuffix("s")) for interval in intervals] == [int(window[1])]


def test_commands_of_the_observability_readme_work() -> None:
    text = (FOLDER / "README.md").read_text()
    for line in re.findall(r"^    (helm upgrade .*)$", text, re.MULTILINE):
        words = shlex.split(line)
        files = [words[i + 1] for i, word in enumerate(words) if word == "-f"]
        assert all((ROOT / path).exists() for path in files)
        if "charts/busyapi" in words:
            sets = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
            assert render(helm_python.parse_set_string(",".join(sets)))
