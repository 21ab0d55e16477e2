"""Draw the chart's dashboards: of a stack that is loaded here, a release on a cluster, or a URL."""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from testkit.prometheus import NAMESPACE, RELEASE
from tools.preview import cluster, loaded_stack
from tools.preview.draw import draw
from tools.preview.panel_queries import Choice, Curve, Json, curves

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "busyapi"
DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))
POINTS = 240
"""Across a picture."""
WARM = 6
"""Seconds of load before the picture begins: a rate needs some scrapes."""


def arguments() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(prog="make dashboards-preview", description=__doc__)
    parser.add_argument("--seconds", type=float, default=80, help="of load (default: %(default)s)")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--prometheus", metavar="URL", help="start nothing, ask this one")
    source.add_argument("--cluster", action="store_true", help="watch a release, by KUBECONFIG")
    parser.add_argument("--minutes", type=float, default=5, help="to show of these (default: 5)")
    parser.add_argument("--scrape", type=float, default=15, help="seconds between URL's scrapes")
    parser.add_argument("--namespace", default="default", help="of the release")
    parser.add_argument("--release", default="busyapi", help="default: %(default)s")
    names = [dashboard.stem for dashboard in DASHBOARDS]
    parser.add_argument(
        "--only", nargs="+", choices=names, metavar="NAME", help="default: those it has data for"
    )
    parser.add_argument(
        "--to", type=Path, default=ROOT / "docs" / "reference" / "dashboards", metavar="DIR"
    )
    return parser.parse_args()


def main() -> int:
    """Draw, and give 1 when a panel that should have data has none."""
    asked = arguments()
    if asked.prometheus:
        return pictures(of_release(asked.prometheus, asked, asked.scrape), asked)
    with tempfile.TemporaryDirectory(prefix="busyapi-preview-") as folder:
        if asked.cluster:
            with cluster.watched(Path(folder), asked.namespace) as url:
                time.sleep(asked.minutes * 60)
                return pictures(of_release(url, asked, cluster.COUNTED), asked)
        with loaded_stack.running(Path(folder)) as running:
            start = time.time() + WARM
            running.load(asked.seconds)
            url = f"http://127.0.0.1:{running.prometheus.port}"
            here = Choice(url, start, time.time(), 1, "5s", NAMESPACE, RELEASE)
            return pictures(here, asked)


def fed(asked: argparse.Namespace) -> list[str]:
    """Name the dashboards that there is data for: only a cluster has any of its resources."""
    of_cluster = [dashboard.stem for dashboard in DASHBOARDS if dashboard.stem == "resources"]
    if asked.cluster:
        return of_cluster
    return [
        dashboard.stem
        for dashboard in DASHBOARDS
        if asked.prometheus or dashboard.stem not in of_cluster
    ]


def of_release(url: str, asked: argparse.Namespace, scrape: float) -> Choice:
    """The last minutes of a release."""
    end = time.time()
    return Choice(
        url,
        start=end - asked.minutes * 60,
        end=end,
        step=max(1, asked.minutes * 60 / POINTS),
        rate_interval=f"{4 * scrape:g}s",
        namespace=asked.namespace,
        release=asked.release,
    )


def pictures(choice: Choice, asked: argparse.Namespace) -> int:
    """Draw each dashboard, and say which panels are bare."""
    asked.to.mkdir(parents=True, exist_ok=True)
    bare = []
    for path in DASHBOARDS:
        if path.stem in (asked.only or fed(asked)):
            dashboard = json.loads(path.read_text())
            picture = asked.to / f"{path.stem}.png"
            bare += draw(dashboard, answers(dashboard, choice), choice, picture)
            sys.stdout.write(f"{picture}\n")
    for title in bare:
        sys.stderr.write(f"no data: {title}\n")
    return 1 if bare else 0


def answers(dashboard: Json, choice: Choice) -> dict[int, list[Curve]]:
    """What Prometheus says to each panel."""
    return {p["id"]: curves(p, choice) for p in dashboard["panels"] if p["type"] != "row"}


if __name__ == "__main__":
    sys.exit(main())
