"""Fixtures: keys, a tagged copy of this repository, a registry."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.releases import LocalRegistry, Repository, run_command, run_registry
from tools.release.registry import Registry
from tools.release.signing import load_private_key, load_public_key

ROOT = Path(__file__).parents[2]


class Keys:
    """A key pair, created by openssl as in RELEASING.md."""

    def __init__(self, folder: Path) -> None:
        self.private_file = folder / "release.key"
        self.public_file = folder / "release.pub"
        curve = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
        run_command("openssl", "genpkey", *curve, "-out", self.private_file)
        to_public = ("-in", self.private_file, "-pubout", "-out", self.public_file)
        run_command("openssl", "pkey", *to_public)
        self.private = load_private_key(str(self.private_file), None)
        self.public = load_public_key(self.public_file)


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def other_keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("other-keys"))


@pytest.fixture(scope="session")
def tagged(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Repository:
    """Return a repository that may be released. Tests must not change it."""
    root = tmp_path_factory.mktemp("tagged") / "busyapi"
    listed = run_command(
        "git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard"
    )
    for name in listed.splitlines():
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / name)
    shutil.copy(keys.public_file, root / "release.pub")
    repository = Repository(root)
    repository.set_version("9.9.0")
    repository.git("init", "-q")
    repository.commit()
    repository.git("tag", "v9.9.0")
    return repository


@pytest.fixture
def repository(tagged: Repository, tmp_path: Path) -> Repository:
    """Return a copy of the tagged repository that a test may change."""
    run_command("git", "clone", "-q", tagged.root, tmp_path / "busyapi")
    return Repository(tmp_path / "busyapi")


@pytest.fixture
def local_registry(tmp_path: Path) -> Iterator[LocalRegistry]:
    with run_registry(tmp_path / "registry") as local:
        yield local


@pytest.fixture
def registry(local_registry: LocalRegistry) -> Registry:
    return Registry(local_registry.prefix, plain_http=True)
