"""PromQL fragments that panels share: how to select a release's series and read a counter.

`$__rate_interval` is four scrape intervals or the time of one pixel, whichever is longer.
"""

RELEASE = 'namespace="$namespace", release="$release"'
FLUSHER = f'{RELEASE}, partition=~"$partition"'
PODS = 'namespace="$namespace", pod=~"$release-.*"'
"""For cAdvisor and kube-state-metrics, which have no label release: pod names begin with it."""

POSTS = 'route=~"/api/usages(/batch)?"'
PARTITION = "partition {{partition}}"


def select(metric: str, *more: str, of: str = RELEASE) -> str:
    """Return the series of this release."""
    return f"{metric}{{{', '.join((of, *more))}}}"


def rate(metric: str, *more: str, of: str = RELEASE) -> str:
    """Return the rate of a counter per second, for each series."""
    return f"rate({select(metric, *more, of=of)}[$__rate_interval])"


def increase(metric: str, *more: str, of: str = RELEASE) -> str:
    """Return how much a counter grew since the previous point."""
    return f"increase({select(metric, *more, of=of)}[$__rate_interval])"


def total(expr: str, by: str = "") -> str:
    """Return the sum, keeping these labels."""
    return f"sum by ({by}) ({expr})" if by else f"sum({expr})"


def largest(expr: str, by: str) -> str:
    """Return the maximum, keeping these labels."""
    return f"max by ({by}) ({expr})"


def quantile(q: float, histogram: str, *more: str, of: str = RELEASE, by: str = "") -> str:
    """Return a quantile of a histogram."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, {total(rate(f'{histogram}_bucket', *more, of=of), labels)})"


def mean(histogram: str, *more: str, of: str = RELEASE, by: str = "") -> str:
    """Return the mean of a histogram."""
    sums = (total(rate(f"{histogram}_{part}", *more, of=of), by) for part in ("sum", "count"))
    return " / ".join(sums)


BACKLOG = select("busyapi:unarchived_usages:max", of=FLUSHER)
"""Recorded by the chart's rules, which handle a flusher that is down."""
