"""The commit to release: checks it and exports its files."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

import yaml

from tools.release.commands import run
from tools.release.errors import ReleaseError


@dataclass(frozen=True)
class Source:
    """A tagged commit and its files."""

    version: str
    commit: str
    timestamp: int
    """The commit's time in seconds since the epoch: the time of every file of the release."""
    tree: Path

    @property
    def environment(self) -> dict[str, str]:
        """Return variables that make a build independent of the clock."""
        return {"SOURCE_DATE_EPOCH": str(self.timestamp)}


def export_release(repository: Path, folder: Path) -> Source:
    """Export the tagged commit at HEAD into a folder.

    Raises:
        ReleaseError: the tree is dirty, HEAD has no tag of its version, or versions differ.
    """
    git = ("git", "-C", repository)
    changes = run(*git, "status", "--porcelain")
    if changes:
        raise ReleaseError(f"The tree has changes: commit or remove them.\n{changes}")
    commit = run(*git, "rev-parse", "HEAD")
    archive = folder / "source.tar"
    tree = folder / "source"
    tree.mkdir()
    run(*git, "-c", "tar.umask=0022", "archive", "--format=tar", "-o", archive, commit)
    run("tar", "-xpf", archive, "-C", tree)
    version = _check_versions(tree)
    if f"v{version}" not in run(*git, "tag", "--points-at", "HEAD").split():
        raise ReleaseError(
            f"HEAD has no tag v{version}: check out that tag, or create it with\n"
            f"    git tag -s v{version} -m 'busyapi {version}'"
        )
    return Source(version, commit, int(run(*git, "log", "-1", "--format=%ct")), tree)


def _check_versions(tree: Path) -> str:
    """Return the version that project, chart and changelog agree on."""
    project: str = tomllib.loads((tree / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((tree / "charts/busyapi/Chart.yaml").read_text())
    for key in ("version", "appVersion"):
        if chart[key] != project:
            raise ReleaseError(
                f"{key} in charts/busyapi/Chart.yaml is {chart[key]}, but the version in"
                f" pyproject.toml is {project}: give both the same version"
            )
    if f"\n## {project} - " not in (tree / "CHANGELOG.md").read_text():
        raise ReleaseError(
            f"CHANGELOG.md has no heading '## {project} - DATE': rename 'Unreleased ({project})'"
        )
    return project
