"""SHA256SUMS lists every file of a release, and SHA256SUMS.sig signs that list."""

from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from tools.release.errors import ReleaseError
from tools.release.signing import sign, verify

LIST = "SHA256SUMS"
SIGNATURE = "SHA256SUMS.sig"


def write_checksums(folder: Path, private: ec.EllipticCurvePrivateKey) -> None:
    """Write the list, in the format of `sha256sum`, and its signature."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in _digests(folder).items())
    (folder / LIST).write_text(lines)
    (folder / SIGNATURE).write_text(sign(private, lines.encode()) + "\n")


def verify_folder(folder: Path, public: ec.EllipticCurvePublicKey) -> None:
    """Refuse a folder if its files are not exactly those that were signed."""
    try:
        content = (folder / LIST).read_bytes()
        signature = (folder / SIGNATURE).read_text().strip()
    except OSError as error:
        raise ReleaseError(f"{folder} has no release: run make release first") from error
    verify(public, content, signature, LIST)
    listed = dict(line.split("  ")[::-1] for line in content.decode().splitlines())
    digests = _digests(folder)
    for name in sorted(listed.keys() | digests.keys()):
        if name not in digests:
            raise ReleaseError(f"{name} is missing: download it again")
        if digests[name] != listed.get(name):
            raise ReleaseError(f"{name} is not the file that was signed: do not use it")


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.name: sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.name not in (LIST, SIGNATURE)
    }
