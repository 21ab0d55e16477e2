"""Push image, chart and signatures to an OCI registry, and pull image and chart if signed.

The signature of the manifest `sha256:abc…` is an image with the tag `sha256-abc….sig`, as cosign
makes it. Its only layer contains the signed JSON; the layer's annotation is the signature.
"""

import json
import tempfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import helm_python
from cryptography.hazmat.primitives.asymmetric import ec

from tools.release.commands import run
from tools.release.errors import ReleaseError
from tools.release.signing import sign, simple_signing, verify

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
PAYLOAD_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
ANNOTATION = "dev.cosignproject.cosign/signature"
IMAGE = "busyapi"
CHART = "charts/busyapi"


@dataclass(frozen=True)
class Registry:
    """A registry and the path in it, such as `registry.example.org/team`."""

    prefix: str
    plain_http: bool = False
    """HTTP without TLS, for a registry on this machine."""

    def push_image(self, archive: Path, version: str) -> str:
        """Push an OCI archive and return its digest."""
        self._copy(f"oci-archive:{archive}", self._docker(f"{IMAGE}:{version}"))
        return self.resolve(IMAGE, version)

    def push_chart(self, archive: Path, version: str) -> str:
        """Push a packed chart and return its digest."""
        remote = f"oci://{self.prefix}/{CHART.rpartition('/')[0]}"  # Helm adds name and version
        try:
            helm_python.push(archive, remote, plain_http=self.plain_http)
        except helm_python.HelmError as error:
            raise ReleaseError(f"{archive.name} cannot be pushed: {error}") from error
        return self.resolve(CHART, version)

    def resolve(self, repository: str, version: str) -> str:
        """Return the digest of the manifest that a version's tag names now."""
        return _digest(self._read_manifest(f"{repository}:{version}"))

    def push_signature(
        self, private: ec.EllipticCurvePrivateKey, repository: str, digest: str
    ) -> None:
        """Sign a digest and push the signature to its repository."""
        payload = simple_signing(f"{self.prefix}/{repository}", digest)
        with tempfile.TemporaryDirectory() as folder:
            _write_layout(Path(folder), payload, sign(private, payload))
            self._copy(f"oci:{folder}", self._docker(f"{repository}:{_signature_tag(digest)}"))

    def verify_signature(
        self, public: ec.EllipticCurvePublicKey, repository: str, digest: str
    ) -> None:
        """Refuse a digest that the key did not sign for this repository."""
        name = f"{self.prefix}/{repository}@{digest}"
        with tempfile.TemporaryDirectory() as folder:
            try:
                self._copy(self._docker(f"{repository}:{_signature_tag(digest)}"), f"dir:{folder}")
            except ReleaseError as error:
                raise ReleaseError(f"{name} has no signature: do not use it.\n{error}") from error
            (layer,) = json.loads((Path(folder) / "manifest.json").read_text())["layers"]
            payload = (Path(folder) / layer["digest"].removeprefix("sha256:")).read_bytes()
        verify(public, payload, layer["annotations"][ANNOTATION], name)
        if payload != simple_signing(f"{self.prefix}/{repository}", digest):
            raise ReleaseError(f"The signature of {name} is for another image: do not use it")

    def pull_image(self, public: ec.EllipticCurvePublicKey, version: str, folder: Path) -> Path:
        """Verify the image of a version and save it as an OCI archive."""
        digest = self.resolve(IMAGE, version)
        self.verify_signature(public, IMAGE, digest)
        archive = folder / f"busyapi-{version}-image.tar"
        self._copy(self._docker(f"{IMAGE}@{digest}"), f"oci-archive:{archive}:{IMAGE}:{version}")
        return archive

    def pull_chart(self, public: ec.EllipticCurvePublicKey, version: str, folder: Path) -> Path:
        """Verify the chart of a version and save it."""
        manifest = self._read_manifest(f"{CHART}:{version}")
        self.verify_signature(public, CHART, _digest(manifest))
        reference = f"oci://{self.prefix}/{CHART}"
        try:
            helm_python.pull(
                reference, version=version, destination=folder, plain_http=self.plain_http
            )
        except helm_python.HelmError as error:
            raise ReleaseError(f"{reference} cannot be pulled: {error}") from error
        archive = folder / f"busyapi-{version}.tgz"
        # Helm resolves the tag again, which may have changed since the verification.
        if _digest(archive.read_bytes()) != json.loads(manifest)["layers"][0]["digest"]:
            raise ReleaseError(f"{reference} changed while it was pulled: pull it again")
        return archive

    def _read_manifest(self, name: str) -> bytes:
        """Return a manifest byte for byte: its digest is that of these bytes."""
        arguments = ("--raw", f"--tls-verify={self._tls}", self._docker(name))
        return run("skopeo", "inspect", *arguments, strip=False).encode()

    def _copy(self, source: str, target: str) -> None:
        """Copy an image; skopeo checks each blob against its digest."""
        tls = (f"--src-tls-verify={self._tls}", f"--dest-tls-verify={self._tls}")
        run("skopeo", "copy", "--quiet", "--preserve-digests", *tls, source, target)

    def _docker(self, name: str) -> str:
        return f"docker://{self.prefix}/{name}"

    @property
    def _tls(self) -> str:
        return "false" if self.plain_http else "true"


def _signature_tag(digest: str) -> str:
    return digest.replace(":", "-") + ".sig"


def _digest(content: bytes) -> str:
    return f"sha256:{sha256(content).hexdigest()}"


def _write_layout(folder: Path, payload: bytes, signature: str) -> None:
    """Write an OCI layout that holds one signature as an image."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def write(content: bytes, media_type: str) -> dict[str, Any]:
        digest = _digest(content)
        (blobs / digest.removeprefix("sha256:")).write_bytes(content)
        return {"mediaType": media_type, "size": len(content), "digest": digest}

    config = {
        "architecture": "",
        "os": "",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [_digest(payload)]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": write(json.dumps(config).encode(), CONFIG_TYPE),
        "layers": [write(payload, PAYLOAD_TYPE) | {"annotations": {ANNOTATION: signature}}],
    }
    index = {
        "schemaVersion": 2,
        "manifests": [write(json.dumps(manifest).encode(), MANIFEST_TYPE)],
    }
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
