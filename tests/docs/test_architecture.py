"""ARCHITECTURE.md names only files and folders that exist, and every folder of the repository."""

import re
import subprocess
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "service" / "busyapi"
TEXT = (ROOT / "ARCHITECTURE.md").read_text()


def read_section(title: str) -> str:
    """Return the text below a heading."""
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def find_paths(text: str) -> set[str]:
    """Return the code spans that name a file or a folder."""
    spans = re.findall(r"`([\w./*-]+)`", text)
    return {span for span in spans if re.search(r"/|\.(?:py|md|lua|yaml|yml)$", span)}


def exists(path: str) -> bool:
    """Return whether the package or the repository has a path. A bare name may be anywhere."""
    if "/" not in path:
        return (ROOT / path).exists() or any(True for _ in ROOT.glob(f"[!.]*/**/{path}"))
    return any(any(base.glob(path + end)) for base in (PACKAGE, ROOT) for end in ("", ".py"))


@pytest.mark.parametrize("path", sorted(find_paths(TEXT)))
def test_path_exists(path: str) -> None:
    assert exists(path.rstrip("/"))


def list_folders(below: str) -> set[str]:
    """Return the folders with tracked files directly below a folder."""
    listed = subprocess.check_output(
        ["git", "ls-files", below or "."], cwd=ROOT, text=True, timeout=20
    )
    tails = (PurePosixPath(line).relative_to(below or ".").parts for line in listed.splitlines())
    return {parts[0] for parts in tails if len(parts) > 1}


def test_every_folder_of_the_service_has_a_line() -> None:
    names = set(re.findall(r"^\| `(\w+)/` \|", read_section("The service"), re.MULTILINE))
    assert names == list_folders("service/busyapi")


def test_every_folder_of_the_repository_has_a_line() -> None:
    names = set(
        re.findall(r"^\| `([\w.]+)(?:/\w+)?` \|", read_section("The repository"), re.MULTILINE)
    )
    assert names == list_folders("")


def test_path_that_does_not_exist_is_found() -> None:
    assert find_paths(
        "`api/app.py`, `stream/*.lua`, `seq`, `busyapi archive ls`, `settings.py`"
    ) == {
        "api/app.py",
        "settings.py",
        "stream/*.lua",
    }
    assert exists("stream/*.lua")
    assert not exists("api/nowhere.py")
