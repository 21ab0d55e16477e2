"""The arithmetic of a token bucket. Its caller keeps the level, and when it was refilled."""


def refill(level: float, seconds: float, rate: float, burst: float) -> float:
    """Return the level after some seconds."""
    return min(burst, level + seconds * rate)


def charge_bucket(
    level: float, cost: float, rate: float, burst: float, already_charged: float = 0
) -> tuple[float, float]:
    """Return the level after a charge, and 0; or the same level, and the seconds to wait.

    A cost above the burst is charged to a full bucket, which goes into debt: later requests wait
    longer, so the rate holds. `already_charged` is what the same request has paid before.
    """
    missing = min(cost + already_charged, burst) - (level + already_charged)
    return (level, missing / rate) if missing > 0 else (level - cost, 0.0)
