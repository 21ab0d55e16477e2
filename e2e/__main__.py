"""Run the scenarios on a cluster, write the report; exit 1 if one failed, 2 without a cluster."""

import argparse
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import NoReturn

from e2e import environment, images
from e2e.evidence import collect
from e2e.kube import Kube
from e2e.plan import FULL, SHORT, Context, Part
from e2e.report import Report
from e2e.target import ROOT, NoCluster, find


def arguments() -> argparse.Namespace:
    """Return the command line options."""
    parser = argparse.ArgumentParser(prog="make e2e", description=__doc__)
    parser.add_argument("--short", action="store_true", help="what CI runs; writes no report")
    parser.add_argument(
        "--only", nargs="+", choices=[part.name for part in FULL], help="parts; writes no report"
    )
    return parser.parse_args()


def main() -> int:
    """Find the cluster, give it the images, run."""
    asked = arguments()
    try:
        target = find()
    except NoCluster as error:
        sys.stderr.write(f"{error}\n")
        return 2
    kube = Kube(target.kubeconfig, "default")
    images.busyapi(target, kube.cluster_id(), environment.image())
    images.valkey(
        target, environment.valkey_image(), present=kube.has_image(environment.valkey_image())
    )
    where = Path(tempfile.mkdtemp(prefix="busyapi-e2e-"))
    whole = not asked.short and not asked.only
    report = Report(environment.gather(kube), ROOT / "docs" / "reports" if whole else where)
    context = Context(target, report, where)
    parts = SHORT if asked.short else [p for p in FULL if not asked.only or p.name in asked.only]
    for part in parts:
        attempt(part, context)
    report.write()
    sys.stdout.write(f"{report.markdown()}\n{report.folder / 'e2e.md'}\n")
    return 1 if report.failed else 0


def attempt(part: Part, context: Context) -> None:
    """Run one part in a namespace of its own; those after it run even if it fails."""
    sys.stdout.write(f"--- {part.name}\n")
    try:
        with context.site(part) as site:
            try:
                part.run(site, context.report)
            except Exception:
                folder = context.folder / part.name
                sys.stderr.write(f"what the pods said is in {folder}\n")
                collect(site.kube, folder)
                raise
    except Exception as error:  # noqa: BLE001 - it is in the report, and makes the run fail
        traceback.print_exc()
        context.report.stopped(part.name, error)


def end(number: int, _: object) -> NoReturn:
    """Leave by way of every `finally`: no namespace, cordon or stopped kubelet may stay behind."""
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end)
    sys.exit(main())
