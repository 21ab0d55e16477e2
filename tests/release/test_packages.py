"""sdist, wheel and chart: two builds of a commit give the same bytes."""

import os
import tarfile
import zipfile
from email.parser import Parser
from hashlib import sha256
from pathlib import Path

import helm_python
import pytest

from testkit.releases import Repository
from tools.release.archives import normalize
from tools.release.packages import build_chart, build_packages
from tools.release.source import export_release

ROOT = Path(__file__).parents[2]


def build(repository: Repository, folder: Path) -> list[Path]:
    folder.mkdir()
    output = folder / "dist"
    output.mkdir()
    source = export_release(repository.root, folder)
    return [*build_packages(source, output), build_chart(source, output)]


@pytest.fixture(scope="module")
def built(tagged: Repository, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return build(tagged, tmp_path_factory.mktemp("first") / "build")


def test_another_build_has_the_same_digests(
    built: list[Path], repository: Repository, tmp_path: Path
) -> None:
    """The second build is in another clone and folder, later, and with another umask."""
    before = os.umask(0o077)
    try:
        again = build(repository, tmp_path / "a-folder-of-another-name")
    finally:
        os.umask(before)
    names = [path.name for path in built]
    assert names == ["busyapi-9.9.0.tar.gz", "busyapi-9.9.0-py3-none-any.whl", "busyapi-9.9.0.tgz"]
    digests = {path.name: sha256(path.read_bytes()).hexdigest() for path in built}
    assert digests == {path.name: sha256(path.read_bytes()).hexdigest() for path in again}


def test_bytes_depend_on_content_and_not_on_order_time_or_owner(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)

    def pack(archive: str, *names: str) -> bytes:
        with tarfile.open(tmp_path / archive, "w:gz") as tar:
            for name in names:
                tar.add(tmp_path / name, arcname=name)
        normalize(tmp_path / archive, 1_000_000_000)
        return (tmp_path / archive).read_bytes()

    first = pack("1.tgz", "a", "b")
    os.utime(tmp_path / "a", (1, 1))
    assert pack("2.tgz", "b", "a") == first
    (tmp_path / "a").write_text("c")
    assert pack("3.tgz", "a", "b") != first


def test_the_wheel_has_every_file_of_the_package_and_the_licence(built: list[Path]) -> None:
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
        metadata = Parser().parsestr(wheel.read("busyapi-9.9.0.dist-info/METADATA").decode())
    package = ROOT / "service" / "busyapi"
    expected = {
        str(path.relative_to(package.parent))
        for path in package.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert expected <= names
    assert "busyapi-9.9.0.dist-info/licenses/LICENSE" in names
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["License-File"] == "LICENSE"


def test_helm_reads_the_packed_chart_as_it_reads_the_folder(
    built: list[Path], tagged: Repository
) -> None:
    folder = tagged.root / "charts/busyapi"
    with helm_python.Chart.load(built[2]) as packed, helm_python.Chart.load(folder) as plain:
        assert packed.version == plain.version == "9.9.0"
    with tarfile.open(built[2]) as chart:
        names = {member.name for member in chart}
    assert "busyapi/templates/_helpers.tpl" in names
    assert not any(name.startswith("busyapi/ci/") for name in names)
