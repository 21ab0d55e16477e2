"""Long work in steps: a generator that yields where other requests may be served."""

from collections.abc import Generator
from typing import TypeVar

_T = TypeVar("_T")

Incremental = Generator[None, None, _T]
"""Work whose result is what the generator returns."""


def run_to_completion(work: Incremental[_T]) -> _T:
    """Do all of it without a break."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: _T = end.value
            return result
