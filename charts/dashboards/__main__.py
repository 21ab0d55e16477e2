"""Write the dashboards into the chart.

python -m charts.dashboards            # write them
python -m charts.dashboards --check    # exit 1 when one is stale
"""

import argparse
import sys
from pathlib import Path

from charts.dashboards.data_path import DATA_PATH
from charts.dashboards.overview import OVERVIEW
from charts.dashboards.resources import RESOURCES

FOLDER = Path(__file__).parents[1] / "busyapi" / "dashboards"
ALL = (OVERVIEW, DATA_PATH, RESOURCES)


def files() -> dict[str, str]:
    """Give each file's name and contents."""
    return {f"{each.name}.json": each.text() for each in ALL}


def stale(folder: Path) -> list[str]:
    """Name the files that are not what the code makes, and those that it does not make."""
    wanted = files()
    found = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    return sorted(name for name in wanted | found if wanted.get(name) != found.get(name))


def main(arguments: list[str] | None = None) -> int:
    """Write or check; give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when stale")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="default: %(default)s")
    options = parser.parse_args(arguments)
    if options.check:
        for name in stale(options.folder):
            sys.stderr.write(f"{options.folder / name} is stale: run python -m charts.dashboards\n")
        return 1 if stale(options.folder) else 0
    for name in stale(options.folder):
        if name in files():
            (options.folder / name).write_text(files()[name], encoding="utf-8")
        else:
            (options.folder / name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
