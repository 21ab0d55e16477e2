"""k8s/observability: the adapter serves the metric of the chart, and the README's commands work."""

import re
import shlex

import helm_python
import yaml

from testkit.chart.rendering import ROOT, Json, of_kind, one, render

FOLDER = ROOT / "k8s" / "observability"


def adapter() -> Json:
    values: Json = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text())
    return values


def test_adapter_serves_the_metric_that_the_chart_uses() -> None:
    (rule,) = adapter()["rules"]["custom"]
    assert adapter()["rules"]["default"] is False
    series = rule["seriesQuery"].partition("{")[0]
    name = re.sub(rule["name"]["matches"], rule["name"]["as"].replace("${1}", r"\1"), series)
    values = {"autoscaling": {"targetRequestsPerSecond": 1}}
    (*_, metric) = one(render(values), "HorizontalPodAutoscaler", "busyapi")["spec"]["metrics"]
    assert name == metric["pods"]["metric"]["name"]
    assert {"namespace", "pod"} == rule["resources"]["overrides"].keys()


def test_rate_window_covers_four_scrapes() -> None:
    (rule,) = adapter()["rules"]["custom"]
    window = re.search(r"\[(\d+)m\]", rule["metricsQuery"])
    assert window
    (monitor, _) = of_kind(
        render({"metrics": {"serviceMonitor": {"enabled": True}}}), "ServiceMonitor"
    )
    interval = monitor["spec"]["endpoints"][0]["interval"]
    stack = yaml.safe_load((FOLDER / "kube-prometheus-stack.yaml").read_text())
    assert stack["prometheus"]["prometheusSpec"]["scrapeInterval"] == interval
    assert int(window[1]) * 60 >= 4 * int(interval.removesuffix("s"))


def test_commands_of_the_observability_readme_work() -> None:
    text = (FOLDER / "README.md").read_text()
    for line in re.findall(r"^    (helm upgrade .*)$", text, re.MULTILINE):
        words = shlex.split(line)
        files = [words[i + 1] for i, word in enumerate(words) if word == "-f"]
        assert all((ROOT / path).exists() for path in files)
        if "charts/busyapi" in words:
            sets = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
            assert render(helm_python.parse_set_string(",".join(sets)))
