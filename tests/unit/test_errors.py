"""The text of an exception, for logs and for clients."""

import re

import pytest

from busyapi.api.archive_client import ArchiveUnavailable
from busyapi.errors import (
    AuditUnavailable,
    BufferFull,
    BusyapiError,
    DurabilityNotMet,
    OutcomeUnknown,
    RedisUnavailable,
    UnknownVersion,
    describe_for_log,
)


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


@pytest.mark.parametrize(
    "error",
    [
        BufferFull,
        RedisUnavailable,
        ArchiveUnavailable,
        DurabilityNotMet,
        AuditUnavailable,
        UnknownVersion,
        OutcomeUnknown,
    ],
)
def test_message_for_clients_says_what_to_do_and_names_no_part(error: type[BusyapiError]) -> None:
    message = str(error())
    assert re.search(r"\. (Try|Send it) again", message)
    assert not re.search(r"redis|valkey|flusher|buffer|partition|tier|memory", message.lower())
