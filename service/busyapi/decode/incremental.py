"""Long work in steps: a generator that yields where the process may serve other requests."""

from collections.abc import Generator
from typing import TypeVar

_T = TypeVar("_T")

Incremental = Generator[None, None, _T]
"""Work in steps; the generator returns the result."""


def run_to_completion(work: Incremental[_T]) -> _T:
    """Run all steps without a break, and return the result."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: _T = end.value
            return result
