import re

import pytest
import yaml

from testkit.chart.programs import helm3, kubectl
from testkit.chart.rendering import ROOT, list_strings, parse

FOLDER = ROOT / "testkit" / "chart"


def test_duplicate_key_is_refused() -> None:
    with pytest.raises(yaml.constructor.ConstructorError, match="duplicate keys"):
        parse("spec:\n  replicas: 1\n  replicas: 2\n")


def test_comments_alone_are_not_an_object() -> None:
    assert parse("---\n# nothing\n---\nkind: Pod\n") == [{"kind": "Pod"}]


def test_string_is_found_at_any_depth() -> None:
    assert "deep" in list_strings({"a": [{"b": [["deep"]]}]})


def test_helm_3_and_kubectl_are_unpacked_once() -> None:
    for program in (helm3, kubectl):
        path = program()
        when = path.stat().st_mtime
        assert path.stat().st_mode & 0o111
        assert program().stat().st_mtime == when


@pytest.mark.parametrize("name", ["requirements-checkov.lock", "requirements-programs.lock"])
def test_lock_pins_every_package_and_names_no_registry(name: str) -> None:
    lines = [line.strip() for line in (FOLDER / name).read_text().splitlines()]
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins
    assert all(re.match(r"[\w.-]+==\S+ .*\\$|--hash=sha256:[0-9a-f]{64}", line) for line in pins)
    assert not re.search(r"://|/(home|root|tmp|work)/", "\n".join(lines))


def test_make_installs_both_locks() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for name in ("requirements-checkov.lock", "requirements-programs.lock"):
        assert re.search(rf"^\t@\$\(INSTALL\S*\) testkit/chart/{name}\b", makefile, re.MULTILINE)
    assert (FOLDER / "checkov.in").read_text().startswith("checkov>=")
