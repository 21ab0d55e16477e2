"""Pieces of PromQL that panels share: which series are this release's, how a counter is read.

`$__rate_interval` is four scrapes or what one pixel stands for, whichever is longer.
"""

RELEASE = 'namespace="$namespace", release="$release"'
FLUSHER = f'{RELEASE}, partition=~"$partition"'
PODS = 'namespace="$namespace", pod=~"$release-.*"'
"""Of cAdvisor and kube-state-metrics, which know no release: all names of a release begin so."""

POSTS = 'route=~"/api/usages(/batch)?"'
PARTITION = "partition {{partition}}"


def picked(metric: str, *more: str, of: str = RELEASE) -> str:
    """Give the series of this release."""
    return f"{metric}{{{', '.join((of, *more))}}}"


def rate(metric: str, *more: str, of: str = RELEASE) -> str:
    """Give a counter's increase a second, series by series."""
    return f"rate({picked(metric, *more, of=of)}[$__rate_interval])"


def increase(metric: str, *more: str, of: str = RELEASE) -> str:
    """Give how much was counted since the point before."""
    return f"increase({picked(metric, *more, of=of)}[$__rate_interval])"


def total(expr: str, by: str = "") -> str:
    """Sum up, keeping these labels."""
    return f"sum by ({by}) ({expr})" if by else f"sum({expr})"


def largest(expr: str, by: str) -> str:
    """Take the largest, keeping these labels."""
    return f"max by ({by}) ({expr})"


def quantile(q: float, histogram: str, *more: str, of: str = RELEASE, by: str = "") -> str:
    """Give what so many observations were not above."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, {total(rate(f'{histogram}_bucket', *more, of=of), labels)})"


def mean(histogram: str, *more: str, of: str = RELEASE, by: str = "") -> str:
    """Give the mean of what was observed."""
    sums = (total(rate(f"{histogram}_{part}", *more, of=of), by) for part in ("sum", "count"))
    return " / ".join(sums)


BACKLOG = picked("busyapi:unarchived_usages:max", of=FLUSHER)
"""Recorded by the chart's rules, which know what to think of a flusher that is away."""
