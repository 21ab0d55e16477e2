"""Write the generated files, or check that they are fresh.

python -m tools.generate                    # write all of them
python -m tools.generate docs dashboards    # write these
python -m tools.generate --check            # write nothing; exit 1 when a file is stale
"""

import argparse
import importlib
import sys
from pathlib import Path
from typing import Protocol, cast

ROOT = Path(__file__).parents[2]
MODULES = {
    "settings": ("settings_page", "chart_config"),
    "values": ("values",),
    "k8s": ("k8s",),
    "dashboards": ("dashboards",),
    "docs": ("metrics_page", "logs_page", "sizing_page"),
}
"""Name -> generators. In this order: the chart is read by those below, dashboards by `docs`."""


class Generator(Protocol):
    """A module that knows its files."""

    OWNED: str
    """A glob; a matching file that `files` does not return is deleted. Empty: nothing is."""

    def files(self, root: Path) -> dict[str, str]:
        """Return the text of each file, by its path below the root."""


def stale(generator: Generator, root: Path) -> dict[Path, str | None]:
    """Return each file that differs with its new text, or with None when it must go."""
    texts = {root / name: text for name, text in generator.files(root).items()}
    owned = root.glob(generator.OWNED) if generator.OWNED else ()
    differing: dict[Path, str | None] = {path: None for path in owned if path not in texts}
    return differing | {path: text for path, text in texts.items() if not holds(path, text)}


def holds(path: Path, text: str) -> bool:
    """Return whether the file exists with this text."""
    return path.exists() and path.read_text(encoding="utf-8") == text


def write(differing: dict[Path, str | None]) -> None:
    """Make the files what they should be."""
    for path, text in differing.items():
        if text is None:
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


def load(module: str) -> Generator:
    """Import a generator; one that is not asked for needs none of its libraries."""
    return cast("Generator", importlib.import_module(f"tools.generate.{module}"))


def main(arguments: list[str] | None = None) -> int:
    """Write or check; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.generate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MODULES))
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when stale")
    parser.add_argument("--root", type=Path, default=ROOT, help="default: %(default)s")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - MODULES.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}. Names: {', '.join(MODULES)}")
    code = 0
    for name, modules in MODULES.items():
        if options.names and name not in options.names:
            continue
        for module in modules:
            code |= run(name, load(module), options.root, check=options.check)
    return code


def run(name: str, generator: Generator, root: Path, *, check: bool) -> int:
    """Run one generator; return 1 when a file is stale in a check, or its source is unusable."""
    try:
        differing = stale(generator, root)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if not check:
        write(differing)
        return 0
    for path in differing:
        sys.stderr.write(f"{path.relative_to(root)} is stale: run `make generate ARGS={name}`\n")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
