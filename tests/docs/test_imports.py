"""The code imports what the table of imports in ARCHITECTURE.md allows."""

import ast
import re
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "service" / "busyapi"
LEAVES = "leaves"
ANYWHERE = {"structlog"}
COMMAND_LINE = {"cli", "__main__"}


@cache
def list_modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(module: Path) -> str:
    parts = module.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def folder_of(name: str) -> str:
    """Return the row of the table that a module belongs to."""
    parts = name.split(".")
    if len(parts) > 2 and parts[1] == "wiring":
        # A row for each role, because a flusher loads no module of the API.
        return "/".join(parts[1:])
    if len(parts) > 1 and (PACKAGE / parts[1]).is_dir():
        return parts[1]
    return "cli" if len(parts) > 1 and parts[1] in COMMAND_LINE else LEAVES


@cache
def module_names() -> frozenset[str]:
    return frozenset(name_of(module) for module in list_modules())


@cache
def list_imports(module: Path) -> tuple[str, ...]:
    names = []
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                names.append(whole if whole in module_names() else node.module)
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return tuple(names)


@cache
def read_table() -> dict[str, tuple[set[str], set[str]]]:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    body = text.split("<!-- imports -->")[1].split("<!-- /imports -->")[0]
    rows = {}
    for line in body.strip().splitlines()[2:]:
        folders, internal, foreign = (cell.strip() for cell in line.strip("|").split("|"))
        allowed = set(re.findall(r"[\w/]+", internal))
        libraries = set(re.findall(r"\w+", foreign))
        for folder in re.findall(r"[\w/]+", folders):
            rows[folder] = (allowed, libraries)
    return rows


def internal_imports(module: Path) -> set[str]:
    return {name for name in list_imports(module) if name.split(".")[0] == "busyapi"}


@pytest.mark.parametrize("module", list_modules(), ids=name_of)
def test_folder_imports_only_what_the_table_allows(module: Path) -> None:
    folder = folder_of(name_of(module))
    allowed, _ = read_table()[folder]
    if "all" in allowed:
        return
    wrong = {name for name in internal_imports(module) if folder_of(name) not in allowed | {folder}}
    assert not wrong


@pytest.mark.parametrize("module", list_modules(), ids=name_of)
def test_library_is_imported_only_where_the_table_allows_it(module: Path) -> None:
    _, libraries = read_table()[folder_of(name_of(module))]
    packages = {name.split(".")[0] for name in list_imports(module)}
    assert packages - sys.stdlib_module_names - ANYWHERE - {"busyapi"} <= libraries


def test_no_import_cycle() -> None:
    graph = {
        name_of(module): internal_imports(module) & module_names() - {name_of(module)}
        for module in list_modules()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(str(error.args[1]))


def test_no_module_is_longer_than_three_hundred_lines() -> None:
    """`settings` may be longer: it is a table, with one row for each setting."""
    long = {
        name_of(module): lines
        for module in list_modules()
        if (lines := len(module.read_text().splitlines())) > 300
        and name_of(module) != "busyapi.settings"
    }
    assert not long


def test_no_process_imports_from_the_working_directory() -> None:
    starts = [
        start
        for module in list_modules()
        for start in re.findall(r"\(sys\.executable, (.*)", module.read_text())
    ]
    assert len(starts) >= 4
    for start in starts:
        # `lake` replaces itself with the same command.
        assert start.startswith(('"-P"', '"-I"', "sys.orig_argv)")), start


def test_only_the_command_line_reads_the_environment() -> None:
    reads = re.compile(r"\benviron\b|\bgetenv\b")
    readers = {name_of(module) for module in list_modules() if reads.search(module.read_text())}
    # failpoints is no setting, and dev passes its environment to its children.
    assert {name for name in readers if not name.startswith("busyapi.dev")} <= {
        "busyapi.cli",
        "busyapi.settings",
        "busyapi.failpoints",
    }


TREES = ("service", "testkit", "tests", "e2e", "perf", "bench", "loadtest", "charts", "tools")
MAY_IMPORT = {
    "service": set(),
    "testkit": set(),
    "charts": set(),
    "perf": {"testkit"},
    "bench": {"perf", "testkit"},
    "loadtest": {"perf", "testkit"},
    "e2e": {"perf", "testkit", "tools"},
    "tools": {"testkit", "charts"},
    "tests": set(TREES),
}
"""Imports between top-level folders. All of them may also import `busyapi`."""


@pytest.mark.parametrize("tree", TREES)
def test_top_level_folder_imports_only_those_below_it(tree: str) -> None:
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / tree).rglob("*.py")
        for name in list_imports(path)
        if name.split(".")[0] in set(TREES) - MAY_IMPORT[tree] - {tree}
    }
    assert not wrong
