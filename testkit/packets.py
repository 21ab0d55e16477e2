"""Split a stream of bytes into packets at random, to be sent one by one."""

import random
from collections.abc import Iterator, Sequence

BETWEEN_SECONDS = 0.001
"""Between packets, so that a server reads most of them one by one."""


def split_stream(
    chance: random.Random, stream: bytes, cut_counts: Sequence[int]
) -> Iterator[bytes]:
    """Yield the stream in packets. The number of cuts is one of these."""
    cuts = sorted(chance.randrange(len(stream) + 1) for _ in range(chance.choice(cut_counts)))
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        if start < end:
            yield stream[start:end]
