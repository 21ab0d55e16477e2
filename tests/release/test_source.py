"""A release is refused unless its commit is tagged and clean, and all versions are equal."""

from pathlib import Path

import pytest

from testkit.releases import Repository
from tests.release.conftest import Keys
from tools.release.errors import ReleaseError
from tools.release.source import export_release


def test_a_tagged_commit_is_exported(tagged: Repository, tmp_path: Path) -> None:
    source = export_release(tagged.root, tmp_path)
    assert source.version == "9.9.0"
    assert source.commit == tagged.git("rev-parse", "v9.9.0")
    assert source.timestamp == int(tagged.git("log", "-1", "--format=%ct"))
    assert (source.tree / "Makefile").read_bytes() == (tagged.root / "Makefile").read_bytes()


@pytest.mark.parametrize("name", ["README.md", "new-file"])
def test_a_dirty_tree_is_refused(repository: Repository, tmp_path: Path, name: str) -> None:
    with (repository.root / name).open("a") as file:
        file.write("changed\n")
    with pytest.raises(ReleaseError, match=f"(?s)The tree has changes: commit .*{name}"):
        export_release(repository.root, tmp_path)


def test_a_commit_without_its_tag_is_refused(repository: Repository, tmp_path: Path) -> None:
    repository.git("tag", "v0.2.9")
    repository.write("README.md", str.upper)
    repository.commit()
    with pytest.raises(ReleaseError, match=r"HEAD has no tag v9\.9\.0: check out that tag"):
        export_release(repository.root, tmp_path)


@pytest.mark.parametrize("key", ["version", "appVersion"])
def test_a_chart_of_another_version_is_refused(
    repository: Repository, tmp_path: Path, key: str
) -> None:
    repository.write(
        "charts/busyapi/Chart.yaml",
        lambda text: "".join(
            f"{key}: 0.2.9\n" if line.startswith(f"{key}:") else line
            for line in text.splitlines(keepends=True)
        ),
    )
    repository.commit()
    with pytest.raises(ReleaseError, match=f"^{key} in charts/busyapi/Chart.yaml is 0.2.9"):
        export_release(repository.root, tmp_path)


def test_a_changelog_that_says_unreleased_is_refused(
    repository: Repository, tmp_path: Path
) -> None:
    repository.write("CHANGELOG.md", lambda text: text.replace("## 9.9.0 - ", "## Unreleased - "))
    repository.commit()
    with pytest.raises(ReleaseError, match=r"no heading '## 9\.9\.0 - DATE'"):
        export_release(repository.root, tmp_path)


def test_without_a_key_the_command_says_how_to_create_one(tagged: Repository) -> None:
    refused = tagged.release("build")
    assert refused.returncode == 1
    assert "RELEASE_KEY is empty" in refused.stderr
    assert "openssl genpkey" in refused.stderr


def test_a_key_that_users_do_not_know_is_refused(tagged: Repository, other_keys: Keys) -> None:
    refused = tagged.release("build", key=other_keys.private_file)
    assert refused.returncode == 1
    assert refused.stderr == (
        "RELEASE_KEY does not belong to release.pub: sign with the other key\n"
    )
    assert not (tagged.root / "dist").exists()
