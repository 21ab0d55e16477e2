"""Image and chart are pushed to a real registry, and pulled only if they match their signatures."""

import json
from pathlib import Path

import pytest

from testkit.releases import LocalRegistry, OciArchive, Repository
from tests.release.conftest import Keys
from tools.release.archives import normalize
from tools.release.errors import ReleaseError
from tools.release.packages import build_chart
from tools.release.registry import CHART, IMAGE, Registry
from tools.release.source import export_release

pytestmark = pytest.mark.release


@pytest.fixture
def image(tmp_path: Path) -> OciArchive:
    return OciArchive(tmp_path / "image.tar", [{"a": b"below"}, {"b": b"above"}], ["PATH=/bin"])


@pytest.fixture
def chart(tagged: Repository, tmp_path: Path) -> Path:
    folder = tmp_path / "export"
    folder.mkdir()
    return build_chart(export_release(tagged.root, folder), tmp_path)


@pytest.fixture
def pushed(registry: Registry, image: OciArchive, chart: Path, keys: Keys) -> Registry:
    """Return a registry with a signed image and a signed chart."""
    registry.push_signature(keys.private, IMAGE, registry.push_image(image.path, "9.9.0"))
    registry.push_signature(keys.private, CHART, registry.push_chart(chart, "9.9.0"))
    return registry


def test_both_are_pulled_unchanged(
    pushed: Registry, image: OciArchive, chart: Path, keys: Keys, tmp_path: Path
) -> None:
    folder = tmp_path / "pulled"
    folder.mkdir()
    assert pushed.resolve(IMAGE, "9.9.0") == image.digest
    pushed.pull_image(keys.public, "9.9.0", folder)
    pulled = pushed.pull_chart(keys.public, "9.9.0", folder)
    assert pulled.read_bytes() == chart.read_bytes()


def test_a_changed_byte_of_the_image_is_refused(
    pushed: Registry, local_registry: LocalRegistry, image: OciArchive, keys: Keys, tmp_path: Path
) -> None:
    local_registry.change_byte(image.layers[-1])
    with pytest.raises(ReleaseError, match="Digest did not match"):
        pushed.pull_image(keys.public, "9.9.0", tmp_path)


def test_a_changed_byte_of_the_chart_is_refused(
    pushed: Registry, local_registry: LocalRegistry, keys: Keys, tmp_path: Path
) -> None:
    manifest = local_registry.read_blob(pushed.resolve(CHART, "9.9.0"))
    local_registry.change_byte(json.loads(manifest)["layers"][0]["digest"])
    with pytest.raises(ReleaseError, match="mismatched digest"):
        pushed.pull_chart(keys.public, "9.9.0", tmp_path)


def test_a_chart_that_changes_after_it_was_verified_is_refused(
    pushed: Registry, chart: Path, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified = pushed._read_manifest(f"{CHART}:9.9.0")
    monkeypatch.setattr(Registry, "_read_manifest", lambda *_: verified)
    normalize(chart, 1)
    pushed.push_chart(chart, "9.9.0")
    with pytest.raises(ReleaseError, match="charts/busyapi changed while it was pulled"):
        pushed.pull_chart(keys.public, "9.9.0", tmp_path)


def test_another_image_under_the_version_is_refused(
    pushed: Registry, keys: Keys, tmp_path: Path
) -> None:
    other = OciArchive(tmp_path / "other.tar", [{"a": b"other"}], [])
    pushed.push_image(other.path, "9.9.0")
    with pytest.raises(ReleaseError, match=f"{other.digest} has no signature"):
        pushed.pull_image(keys.public, "9.9.0", tmp_path)


def test_a_signature_by_another_key_is_refused(
    pushed: Registry, image: OciArchive, keys: Keys, other_keys: Keys, tmp_path: Path
) -> None:
    pushed.push_signature(other_keys.private, IMAGE, image.digest)
    with pytest.raises(ReleaseError, match=f"The signature of .*{image.digest} does not match"):
        pushed.pull_image(keys.public, "9.9.0", tmp_path)


def test_a_signature_of_another_image_is_refused(
    pushed: Registry, local_registry: LocalRegistry, image: OciArchive, keys: Keys, tmp_path: Path
) -> None:
    """A valid signature is copied to the tag of another image's signature."""
    other = OciArchive(tmp_path / "other.tar", [{"a": b"other"}], [])
    pushed.push_image(other.path, "9.9.0")
    local_registry.copy_tag(IMAGE, _tag(image.digest), _tag(other.digest))
    with pytest.raises(ReleaseError, match="is for another image"):
        pushed.pull_image(keys.public, "9.9.0", tmp_path)


def _tag(digest: str) -> str:
    return digest.replace(":", "-") + ".sig"
