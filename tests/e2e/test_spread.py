"""A post that fails after the seconds in which a lost server may cost some is found."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from e2e.measure import Sample, ScenarioFailed
from e2e.openloop import OpenLoop
from e2e.release import Release
from e2e.scenarios.partition_servers import is_without, read_missing
from e2e.scenarios.spread import require_none_later
from testkit.history import Outcome

TEXT = 'busyapi_committers_ready{{partition="{}"}} {}.0\n'


def make_load(*samples: tuple[float, Outcome]) -> OpenLoop:
    return cast(
        "OpenLoop",
        SimpleNamespace(samples=[Sample(at, at + 9, outcome, 0) for at, outcome in samples]),
    )


def make_release(*metrics: str) -> Release:
    pods = [SimpleNamespace(metadata=SimpleNamespace(name=text)) for text in metrics]
    kube: Any = SimpleNamespace(
        list_ready_pods=lambda _: pods, get=lambda pod, port, path: (pod, port, path)[0]
    )
    return cast("Release", SimpleNamespace(kube=kube))


def test_only_posts_before_the_limit_may_fail() -> None:
    early = [(1.0, Outcome.UNKNOWN), (2.0, Outcome.REFUSED), (3.0, Outcome.OK)]
    require_none_later(make_load(*early, (6.0, Outcome.OK)), 5.0)
    with pytest.raises(ScenarioFailed, match="1 of 2 posts failed"):
        require_none_later(make_load(*early, (6.0, Outcome.REFUSED), (7.0, Outcome.OK)), 5.0)
    with pytest.raises(ScenarioFailed, match="0 of 0"):
        require_none_later(make_load(*early), 5.0)


def test_each_api_pod_must_lack_the_same_partitions() -> None:
    without = "".join(TEXT.format(number, int(number > 1)) for number in range(12))
    ready = "".join(TEXT.format(number, 1) for number in range(12))
    assert read_missing(make_release(without, ready)) == [{0, 1}, set()]
    assert is_without(make_release(without, without), {0, 1})
    assert not is_without(make_release(without, ready), {0, 1})
    assert not is_without(make_release(), {0, 1})
