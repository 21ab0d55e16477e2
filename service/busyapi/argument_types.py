"""Types of command-line arguments for argparse, of busyapi's commands and of developers' tools."""

import argparse
from collections.abc import Callable

SHOWN = 20
"""Characters of a wrong value in its message."""


def whole_number(
    minimum: int, maximum: int | None = None, noun: str = "a whole number"
) -> Callable[[str], int]:
    """Return a parser of whole numbers in a range; `noun` says in its error what is expected."""
    limits = f"from {minimum}" if maximum is None else f"from {minimum} to {maximum}"

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = minimum - 1
        if number < minimum or (maximum is not None and number > maximum):
            raise argparse.ArgumentTypeError(f"{text[:SHOWN]!r} is not {noun} {limits}")
        return number

    return parse
