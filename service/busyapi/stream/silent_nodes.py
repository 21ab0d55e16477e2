"""For how long nodes have not answered, so that a lost one delays only the first questions.

Who asks all of several nodes waits for the slowest. A node that has not answered for as long as one
question may take counts as silent: until it answers again, further questions wait for it only
shortly.
"""

MIN_SECONDS = 0.1
"""Enough for a node that works. One that does not answer in it is asked again."""

Address = tuple[str, int]


class SilentNodes:
    """The time for which each node was waited for since its last answer."""

    def __init__(self) -> None:
        self._waited: dict[Address, float] = {}

    def limit_seconds(self, node: Address, seconds: float) -> float:
        """Return how long to wait for a node that may be waited for this long in all."""
        return max(MIN_SECONDS, seconds - self._waited.get(node, 0.0))

    def is_silent(self, node: Address, seconds: float) -> bool:
        """Return whether a node has been waited for this long in vain."""
        return self._waited.get(node, 0.0) >= seconds

    def record_answer(self, node: Address) -> None:
        """Record that a node has answered."""
        self._waited.pop(node, None)

    def record_silence(self, node: Address, seconds: float) -> None:
        """Record that a node has not answered within some seconds."""
        self._waited[node] = self._waited.get(node, 0.0) + seconds
