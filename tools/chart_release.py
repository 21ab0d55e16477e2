"""Pack the chart into tests/chart/released/, where later versions are compared with it."""

import sys
from pathlib import Path

import helm_python

from testkit.chart.rendering import CHART, ROOT, load_chart

RELEASED = ROOT / "tests" / "chart" / "released"


def find_archives() -> list[Path]:
    """Return every chart that was released."""
    return sorted(RELEASED.glob("busyapi-*.tgz"))


def pack_release(chart: Path = CHART, folder: Path = RELEASED) -> Path:
    """Pack the chart. A version that was released is never packed again."""
    archive = folder / f"busyapi-{load_chart(chart).version}.tgz"
    if archive.exists():
        raise FileExistsError(
            f"{archive.name} is already released: change the version in Chart.yaml"
        )
    helm_python.package(chart, destination=folder)
    return archive


def main() -> int:
    """Pack the chart and print its path, or why it cannot be packed."""
    try:
        sys.stdout.write(f"{pack_release()}\n")
    except FileExistsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
