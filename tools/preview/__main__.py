"""Draw the chart's dashboards: with data of a stack on this machine, of a cluster, or of a URL."""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from testkit.prometheus import NAMESPACE, RELEASE
from tools.preview import cluster, loaded_stack
from tools.preview.draw import draw_dashboard
from tools.preview.panel_queries import Choice, Curve, Json, query_curves

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "busyapi"
DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))
MAX_POINTS = 240
"""Points of a curve."""
WARM_UP_SECONDS = 6
"""Load before the start of the picture: a rate needs some scrapes."""


def parse_options() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="make dashboards-preview", description=__doc__)
    parser.add_argument("--seconds", type=float, default=80, help="of load (default: %(default)s)")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--prometheus", metavar="URL", help="start nothing, query this one")
    source.add_argument(
        "--cluster", action="store_true", help="watch a release on the cluster of KUBECONFIG"
    )
    parser.add_argument(
        "--minutes", type=float, default=5, help="time to show of a release (default: 5)"
    )
    parser.add_argument("--scrape", type=float, default=15, help="seconds between scrapes of URL")
    parser.add_argument("--namespace", default="default", help="of the release")
    parser.add_argument("--release", default="busyapi", help="default: %(default)s")
    names = [dashboard.stem for dashboard in DASHBOARDS]
    parser.add_argument(
        "--only", nargs="+", choices=names, metavar="NAME", help="default: those that have data"
    )
    parser.add_argument(
        "--to", type=Path, default=ROOT / "docs" / "reference" / "dashboards", metavar="DIR"
    )
    return parser.parse_args()


def main() -> int:
    """Draw the dashboards; return 1 if a panel lacks data that it should have."""
    options = parse_options()
    if options.prometheus:
        return draw_dashboards(of_release(options.prometheus, options, options.scrape), options)
    with tempfile.TemporaryDirectory(prefix="busyapi-preview-") as folder:
        if options.cluster:
            with cluster.watch_namespace(Path(folder), options.namespace) as url:
                time.sleep(options.minutes * 60)
                return draw_dashboards(
                    of_release(url, options, cluster.KUBELET_INTERVAL_SECONDS), options
                )
        with loaded_stack.run_loaded_stack(Path(folder)) as running:
            start = time.time() + WARM_UP_SECONDS
            running.load(options.seconds)
            url = f"http://127.0.0.1:{running.prometheus.port}"
            here = Choice(url, start, time.time(), 1, "5s", NAMESPACE, RELEASE)
            return draw_dashboards(here, options)


def select_dashboards(options: argparse.Namespace) -> list[str]:
    """Return the dashboards that have data: only a cluster has data about its resources."""
    of_cluster = [dashboard.stem for dashboard in DASHBOARDS if dashboard.stem == "resources"]
    if options.cluster:
        return of_cluster
    return [
        dashboard.stem
        for dashboard in DASHBOARDS
        if options.prometheus or dashboard.stem not in of_cluster
    ]


def of_release(url: str, options: argparse.Namespace, scrape: float) -> Choice:
    """Return a choice that shows the last minutes of a release."""
    end = time.time()
    return Choice(
        url,
        start=end - options.minutes * 60,
        end=end,
        step=max(1, options.minutes * 60 / MAX_POINTS),
        rate_interval=f"{4 * scrape:g}s",
        namespace=options.namespace,
        release=options.release,
    )


def draw_dashboards(choice: Choice, options: argparse.Namespace) -> int:
    """Draw each dashboard, and print the panels that lack data."""
    options.to.mkdir(parents=True, exist_ok=True)
    missing = []
    for path in DASHBOARDS:
        if path.stem in (options.only or select_dashboards(options)):
            dashboard = json.loads(path.read_text())
            picture = options.to / f"{path.stem}.png"
            missing += draw_dashboard(dashboard, query_panels(dashboard, choice), choice, picture)
            sys.stdout.write(f"{picture}\n")
    for title in missing:
        sys.stderr.write(f"no data: {title}\n")
    return 1 if missing else 0


def query_panels(dashboard: Json, choice: Choice) -> dict[int, list[Curve]]:
    """Return the curves of each panel, by its id."""
    return {p["id"]: query_curves(p, choice) for p in dashboard["panels"] if p["type"] != "row"}


if __name__ == "__main__":
    sys.exit(main())
