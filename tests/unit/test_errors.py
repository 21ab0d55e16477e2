"""The text of an exception in a log."""

import pytest

from busyapi.errors import BufferFull, BusyapiError, RedisUnavailable, describe_for_log


def fail(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RedisUnavailable("no connection"), "no connection"),
        (BusyapiError(), "An error of busyapi."),
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device"),
    ],
)
def test_text_of_busyapi_and_of_the_system_is_logged(error: Exception, text: str) -> None:
    assert describe_for_log(error) == text


@pytest.mark.parametrize("error", [ValueError("secret"), KeyError("secret"), AssertionError()])
def test_only_type_and_place_of_other_errors_are_logged(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        fail(error)
    assert describe_for_log(caught.value).startswith(f"{type(error).__name__} in fail:")


def test_a_full_buffer_is_not_blamed_on_the_archive_alone() -> None:
    """Devices also get this sentence when Redis has no memory left."""
    assert "too many usages wait to be archived" in describe_for_log(BufferFull())
    assert "or memory is full" in describe_for_log(BufferFull())
