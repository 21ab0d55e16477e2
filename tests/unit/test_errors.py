"""What a log says of an exception."""

import pytest

from busyapi.errors import BufferFull, BusyapiError, RedisUnavailable, describe_for_log


def fail(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RedisUnavailable("no connection"), "no connection"),
        (BusyapiError(), "Something went wrong in busyapi."),
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device"),
    ],
)
def test_our_text_and_the_systems_is_said(error: Exception, said: str) -> None:
    assert describe_for_log(error) == said


@pytest.mark.parametrize("error", [ValueError("secret"), KeyError("secret"), AssertionError()])
def test_of_any_other_only_type_and_place(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        fail(error)
    assert describe_for_log(caught.value).startswith(f"{type(error).__name__} in fail:")


def test_a_full_buffer_is_not_blamed_on_the_archive_alone() -> None:
    """Devices are told this sentence also when it is Redis that has no memory left."""
    assert "the archive is behind" in describe_for_log(BufferFull())
    assert "or memory has run out" in describe_for_log(BufferFull())
