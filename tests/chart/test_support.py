import pytest
import yaml

from tests.chart.programs import helm3, kubectl
from tests.chart.support import parse, strings


def test_a_key_that_stands_twice_is_refused() -> None:
    with pytest.raises(yaml.constructor.ConstructorError, match="twice"):
        parse("spec:\n  replicas: 1\n  replicas: 2\n")


def test_comments_alone_are_no_object() -> None:
    assert parse("---\n# nothing\n---\nkind: Pod\n") == [{"kind": "Pod"}]


def test_a_string_is_found_at_any_depth() -> None:
    assert "deep" in strings({"a": [{"b": [["deep"]]}]})


def test_helm_3_and_kubectl_are_unpacked_once() -> None:
    for program in (helm3, kubectl):
        path = program()
        when = path.stat().st_mtime
        assert path.stat().st_mode & 0o111
        assert program().stat().st_mtime == when
