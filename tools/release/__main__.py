"""The command: build, verify, push, pull."""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from tools.release.checksums import verify_folder, write_checksums
from tools.release.errors import ReleaseError
from tools.release.image import build_image
from tools.release.packages import build_chart, build_packages
from tools.release.registry import CHART, IMAGE, Registry
from tools.release.sbom import write_image_sbom, write_lock_sbom
from tools.release.signing import check_pair, load_private_key, load_public_key
from tools.release.source import export_release

ROOT = Path(__file__).parents[2]
PUBLIC_KEY = "release.pub"


def build(arguments: argparse.Namespace) -> None:
    """Build and sign all files of the release of HEAD."""
    private = load_private_key(os.environ.get("RELEASE_KEY", ""), _password())
    with tempfile.TemporaryDirectory() as name:
        source = export_release(ROOT, Path(name))
        check_pair(private, load_public_key(source.tree / PUBLIC_KEY))
        output = Path(name) / "dist"
        output.mkdir()
        _report(f"busyapi {source.version}, commit {source.commit}")
        for path in (*build_packages(source, output), build_chart(source, output)):
            _report(f"built {path.name}")
        archive = build_image(source, output, arguments.base)
        _report(f"built {archive.name}")
        write_lock_sbom(source, output)
        write_image_sbom(source, output, archive)
        write_checksums(output, private)
        # Only a complete release replaces the files that exist.
        shutil.rmtree(arguments.dist, ignore_errors=True)
        shutil.copytree(output, arguments.dist)
    _report(f"signed, in {arguments.dist}")


def verify(arguments: argparse.Namespace) -> None:
    """Verify the checksums and the signature of a folder."""
    verify_folder(arguments.dist, load_public_key(arguments.public_key))
    _report(f"{arguments.dist}: all files match the signed checksums")


def push(arguments: argparse.Namespace) -> None:
    """Push image and chart of a verified folder, and a signature of each."""
    private = load_private_key(os.environ.get("RELEASE_KEY", ""), _password())
    verify_folder(arguments.dist, private.public_key())
    (archive,) = arguments.dist.glob("busyapi-*-image.tar")
    (chart,) = arguments.dist.glob("busyapi-*.tgz")
    version = chart.stem.removeprefix("busyapi-")
    registry = Registry(arguments.registry, arguments.plain_http)
    digests = {
        IMAGE: registry.push_image(archive, version),
        CHART: registry.push_chart(chart, version),
    }
    for repository, digest in digests.items():
        registry.push_signature(private, repository, digest)
        _report(f"pushed {arguments.registry}/{repository}:{version}@{digest}")


def pull(arguments: argparse.Namespace) -> None:
    """Verify image and chart of a version in a registry, and download them."""
    public = load_public_key(arguments.public_key)
    registry = Registry(arguments.registry, arguments.plain_http)
    arguments.dist.mkdir(parents=True, exist_ok=True)
    _report(f"verified {registry.pull_image(public, arguments.version, arguments.dist)}")
    _report(f"verified {registry.pull_chart(public, arguments.version, arguments.dist)}")


def _password() -> str | None:
    return os.environ.get("RELEASE_KEY_PASSWORD")


def _report(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.release",
        description="Build, verify, push and pull a release. RELEASING.md has the steps.",
        epilog="RELEASE_KEY is the private key or its file, RELEASE_KEY_PASSWORD its password.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (build, verify, push, pull):
        sub = commands.add_parser(command.__name__, help=command.__doc__)
        sub.set_defaults(command=command)
        sub.add_argument("--dist", type=Path, default=ROOT / "dist", help="the folder of the files")
        if command is build:
            sub.add_argument(
                "--base", default="", help="image to build from, in place of the pinned one"
            )
        if command in (verify, pull):
            help_ = "the key to verify with; take it from the repository, not from the release"
            sub.add_argument("--public-key", type=Path, default=ROOT / PUBLIC_KEY, help=help_)
        if command in (push, pull):
            sub.add_argument("registry", help="such as registry.example.org/team")
            sub.add_argument("--plain-http", action="store_true", help="a registry without TLS")
        if command is pull:
            sub.add_argument("version")
    return parser


def main() -> int:
    """Run one command."""
    arguments = _parser().parse_args()
    try:
        arguments.command(arguments)
    except ReleaseError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
