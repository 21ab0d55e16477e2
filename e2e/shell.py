"""A bash on this machine, for the commands of the documentation."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e.release import Release
from testkit.chart.programs import helm3, kubectl
from testkit.docs.runbook_shell import Shell, on_cluster


@contextmanager
def open_shell(release: Release, *, has_busyapi: bool = False) -> Iterator[Shell]:
    """Provide a bash whose kubectl and helm work on the release.

    With `has_busyapi` it also has busyapi's command line.
    """
    with tempfile.TemporaryDirectory() as folder:
        yield make_shell(release, Path(folder), has_busyapi=has_busyapi)


def make_shell(release: Release, folder: Path, *, has_busyapi: bool) -> Shell:
    """Return such a bash, with a folder for its files."""
    bash = on_cluster(folder, kubectl(), helm3(), release.target.kubeconfig, release.namespace)
    if has_busyapi:
        bash.add_program("busyapi", f'#!/bin/sh\nexec {sys.executable} -m busyapi "$@"\n')
    return bash
