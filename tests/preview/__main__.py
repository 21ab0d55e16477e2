"""Draw the chart's dashboards: from a stack that is loaded here, or from a Prometheus that is."""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from tests.observability.prometheus import NAMESPACE, RELEASE
from tests.preview import site
from tests.preview.ask import Choice, Curve, Json, curves
from tests.preview.draw import draw

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
    parser.add_argument("--prometheus", metavar="URL", help="start nothing, ask this one")
    parser.add_argument("--minutes", type=float, default=15, help="to show of it (default: 15)")
    parser.add_argument("--scrape", type=float, default=15, help="seconds between its scrapes")
    parser.add_argument("--namespace", default=NAMESPACE)
    parser.add_argument("--release", default=RELEASE)
    names = [each.stem for each in DASHBOARDS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "dashboards", metavar="DIR")
    return parser.parse_args()


def main() -> int:
    """Draw, and give 1 when a panel that should have data has none."""
    asked = arguments()
    if asked.prometheus:
        end = time.time()
        choice = Choice(
            asked.prometheus,
            start=end - asked.minutes * 60,
            end=end,
            step=max(1, asked.minutes * 60 / POINTS),
            rate_interval=f"{4 * asked.scrape:g}s",
            namespace=asked.namespace,
            release=asked.release,
        )
        return pictures(choice, asked)
    with (
        tempfile.TemporaryDirectory(prefix="busyapi-preview-") as folder,
        site.running(Path(folder)) as running,
    ):
        start = time.time() + WARM
        running.load(asked.seconds)
        choice = Choice(
            f"http://127.0.0.1:{running.prometheus.port}",
            start=start,
            end=time.time(),
            step=1,
            rate_interval="5s",
            namespace=NAMESPACE,
            release=RELEASE,
        )
        return pictures(choice, asked)


def pictures(choice: Choice, asked: argparse.Namespace) -> int:
    """Draw each dashboard, and say which panels are bare."""
    asked.to.mkdir(parents=True, exist_ok=True)
    bare = []
    for path in DASHBOARDS:
        if path.stem in asked.only:
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
