from itertools import count

from perf.sampler import Sampler
from testkit.waiting import wait_until


def test_samples_are_taken_until_the_end_and_failed_ones_are_counted() -> None:
    numbers = count()

    def take() -> int:
        number = next(numbers)
        if number == 1:
            raise OSError("unavailable")
        return number

    with Sampler(take, 0.01, OSError) as sampler:
        wait_until(lambda: len(sampler.samples) >= 3, "three samples")
    assert sampler.samples == [0, *range(2, next(numbers))]
    assert sampler.missed == 1


def test_one_sample_is_taken_at_the_start_and_one_at_the_end() -> None:
    with Sampler(lambda: None, 60.0) as sampler:
        pass
    assert len(sampler.samples) == 2
