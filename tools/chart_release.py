"""Pack the chart into tests/chart/released/, where later versions are compared with it."""

import sys
from pathlib import Path

import helm_python

from testkit.chart.rendering import CHART, ROOT, loaded

RELEASED = ROOT / "tests" / "chart" / "released"


def archives() -> list[Path]:
    """Every chart that was released."""
    return sorted(RELEASED.glob("busyapi-*.tgz"))


def release(chart: Path = CHART, folder: Path = RELEASED) -> Path:
    """Pack it; what was released once under a version stays as it is."""
    archive = folder / f"busyapi-{loaded(chart).version}.tgz"
    if archive.exists():
        raise FileExistsError(f"{archive.name} is released: give Chart.yaml another version")
    helm_python.package(chart, destination=folder)
    return archive


def main() -> int:
    """Say which, or why not."""
    try:
        sys.stdout.write(f"{release()}\n")
    except FileExistsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
