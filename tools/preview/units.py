"""Format values as Grafana does, in the units that the dashboards have."""

from collections.abc import Sequence

Scale = Sequence[tuple[float, str]]

SECONDS: Scale = [
    (1e-6, " µs"),
    (1e-3, " ms"),
    (1, " s"),
    (60, " min"),
    (3600, " hours"),
    (86_400, " days"),
]
THOUSANDS: Scale = [(1, ""), (1e3, " K"), (1e6, " Mil"), (1e9, " Bil")]
BINARY: Scale = [(1, " B"), (2**10, " KiB"), (2**20, " MiB"), (2**30, " GiB"), (2**40, " TiB")]
BINARY_RATE: Scale = [(factor, f"{name}/s") for factor, name in BINARY]
DECIMAL: Scale = [(1, " B/s"), (1e3, " kB/s"), (1e6, " MB/s"), (1e9, " GB/s")]
PER_SECOND = {"reqps": " req/s", "cps": " c/s", "iops": " io/s"}


def format_value(value: float, unit: str, decimals: int | None = None) -> str:
    """Return a value with its unit.

    Raises:
        KeyError: the unit is unknown; add it here.
    """
    if unit == "percentunit":
        return f"{_digits(value * 100, decimals)}%"
    if unit.startswith("suffix:"):
        return _digits(value, decimals) + unit.removeprefix("suffix:")
    if unit == "d":
        return _scaled(value * 86_400, SECONDS, decimals) if value else "0 days"
    if unit in PER_SECOND:
        return _scaled(value, THOUSANDS, decimals) + PER_SECOND[unit]
    scales = {
        "s": SECONDS,
        "short": THOUSANDS,
        "bytes": BINARY,
        "binBps": BINARY_RATE,
        "Bps": DECIMAL,
    }
    return _scaled(value, scales[unit], decimals)


def _scaled(value: float, scale: Scale, decimals: int | None) -> str:
    if not value:
        return "0" + next(suffix for factor, suffix in scale if factor == 1)
    factor, suffix = scale[0]
    for larger, name in scale:
        if abs(value) >= larger * 0.9999:
            factor, suffix = larger, name
    return _digits(value / factor, decimals) + suffix


def _digits(value: float, decimals: int | None) -> str:
    if decimals is not None:
        return f"{value:.{decimals}f}"
    size = abs(value)
    text = f"{value:.0f}" if size >= 100 else f"{value:.3g}" if size >= 1e-3 else f"{value:.6f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
