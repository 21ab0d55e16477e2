"""Write the generated files, or check that they are up to date.

python -m tools.generate                    # write all of them
python -m tools.generate docs dashboards    # write these
python -m tools.generate --check            # write nothing; exit 1 if a file is stale
"""

import argparse
import importlib
import sys
from pathlib import Path
from typing import Protocol, cast

ROOT = Path(__file__).parents[2]
MODULES = {
    "settings": ("settings_page", "chart_config"),
    "values": ("values", "chart_defaults"),
    "k8s": ("k8s",),
    "dashboards": ("dashboards",),
    "docs": ("metrics_page", "logs_page", "sizing_page"),
}
"""Name -> generators, in the order in which they run.

`k8s` reads the chart that the generators above it write, and `docs` reads the dashboards.
"""


class Generator(Protocol):
    """A module that renders the files that it owns."""

    OWNED: str
    """A glob; a matching file that `render_files` does not return is deleted. Empty: no file is."""

    def render_files(self, root: Path) -> dict[str, str]:
        """Return the text of each file, by its path below the root."""


def find_stale(generator: Generator, root: Path) -> dict[Path, str | None]:
    """Return each file that differs with its new text, or with None if it must be deleted."""
    texts = {root / name: text for name, text in generator.render_files(root).items()}
    owned = root.glob(generator.OWNED) if generator.OWNED else ()
    differing: dict[Path, str | None] = {path: None for path in owned if path not in texts}
    return differing | {path: text for path, text in texts.items() if not has_text(path, text)}


def has_text(path: Path, text: str) -> bool:
    """Return whether the file exists with this text."""
    return path.exists() and path.read_text(encoding="utf-8") == text


def write_files(differing: dict[Path, str | None]) -> None:
    """Write the new texts, and delete the files without one."""
    for path, text in differing.items():
        if text is None:
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


def import_generator(module: str) -> Generator:
    """Import a generator. A generator that does not run does not need its libraries."""
    return cast("Generator", importlib.import_module(f"tools.generate.{module}"))


def main(arguments: list[str] | None = None) -> int:
    """Write or check; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.generate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MODULES))
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if a file is stale"
    )
    parser.add_argument("--root", type=Path, default=ROOT, help="default: %(default)s")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - MODULES.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}. Names: {', '.join(MODULES)}")
    code = 0
    for name, modules in MODULES.items():
        if options.names and name not in options.names:
            continue
        for module in modules:
            code |= run_generator(name, import_generator(module), options.root, check=options.check)
    return code


def run_generator(name: str, generator: Generator, root: Path, *, check: bool) -> int:
    """Run one generator; return 1 if a check finds a stale file, or if its source is invalid."""
    try:
        differing = find_stale(generator, root)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if not check:
        write_files(differing)
        return 0
    for path in differing:
        sys.stderr.write(f"{path.relative_to(root)} is stale: run `make generate ARGS={name}`\n")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
