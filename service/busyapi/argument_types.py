"""Argument types for argparse, for busyapi's commands and the developer tools."""

import argparse
from collections.abc import Callable

SHOWN = 20
"""Number of characters of an invalid value in the error message."""


def whole_number(
    minimum: int, maximum: int | None = None, noun: str = "a whole number"
) -> Callable[[str], int]:
    """Return a parser for whole numbers in a range. `noun` describes the number in errors."""
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
