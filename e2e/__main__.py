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


def parse_options() -> argparse.Namespace:
    """Return the command line options."""
    parser = argparse.ArgumentParser(prog="make e2e", description=__doc__)
    parser.add_argument(
        "--short", action="store_true", help="run the scenarios of CI; write no report"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[part.name for part in FULL],
        help="run only these parts; write no report",
    )
    return parser.parse_args()


def main() -> int:
    """Find the cluster, load the images, and run the parts."""
    options = parse_options()
    try:
        target = find()
    except NoCluster as error:
        sys.stderr.write(f"{error}\n")
        return 2
    kube = Kube(target.kubeconfig, "default")
    images.load_busyapi(target, kube.cluster_id(), environment.default_image())
    images.build_valkey(
        target, environment.valkey_image(), present=kube.has_image(environment.valkey_image())
    )
    folder = Path(tempfile.mkdtemp(prefix="busyapi-e2e-"))
    is_complete = not options.short and not options.only
    report = Report(
        environment.collect_facts(kube), ROOT / "docs" / "reports" if is_complete else folder
    )
    context = Context(target, report, folder)
    parts = (
        SHORT if options.short else [p for p in FULL if not options.only or p.name in options.only]
    )
    for part in parts:
        run_part(part, context)
    report.write()
    sys.stdout.write(f"{report.markdown()}\n{report.folder / 'e2e.md'}\n")
    return 1 if report.failed else 0


def run_part(part: Part, context: Context) -> None:
    """Run one part in its own namespace. If it fails, the others still run."""
    sys.stdout.write(f"--- {part.name}\n")
    try:
        with context.release(part) as release:
            try:
                part.run(release, context.report)
            except Exception:
                folder = context.folder / part.name
                sys.stderr.write(f"The logs of the pods are in {folder}.\n")
                collect(release.kube, folder)
                raise
    except Exception as error:  # noqa: BLE001 - the report has it, and the run fails
        traceback.print_exc()
        context.report.record_error(part.name, error)


def exit_on_signal(number: int, _: object) -> NoReturn:
    """Exit through every `finally`, so that no namespace, cordon or stopped kubelet remains."""
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, exit_on_signal)
    sys.exit(main())
