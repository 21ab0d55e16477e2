"""The rules of strict validation for the three named members of a usage.

An integer is a number without a fraction, however it is spelled: JSON Schema does not distinguish
`100`, `100.0` and `1e2`. The line has its digits.
"""

from collections.abc import Iterator

import msgspec

from busyapi.decode.timestamp import (
    MAX_PLAUSIBLE_MS,
    MIN_PLAUSIBLE_MS,
    is_plausible,
    is_timestamp,
    match_plain_timestamp,
)
from busyapi.errors import ValidationError

MAX_PATIENT_ID_LENGTH = 128
"""Characters. A character is a Unicode code point, as for maxLength of JSON Schema."""

MAX_PATIENT_NUMBER = 2**53 - 1
"""The largest integer that no reader confuses with the next one (ECMA-262, MAX_SAFE_INTEGER)."""

MAX_MEDICATION_LENGTH = 256
"""Characters, counted in the same way."""


def is_object(value: object) -> bool:
    """Return whether a value is a usage to lenient validation, which accepts any JSON object."""
    return type(value) is dict


def is_ordinary_usage(value: object) -> bool:
    """Return whether a value is a usage to strict validation, fast and without a reason.

    False also for a usage that needs more than its line: a whole number to convert, or a time to
    warn about.
    """
    if type(value) is not dict:
        return False
    try:
        medication, patient = value["medication"], value["patientId"]
        timestamp = value["timestamp"]
    except KeyError:
        return False
    # Few calls: two of them are a tenth of the cost of decoding a usage.
    if type(medication) is not str or not 0 < len(medication) <= MAX_MEDICATION_LENGTH:
        return False
    if type(patient) is str:
        if not 0 < len(patient) <= MAX_PATIENT_ID_LENGTH:
            return False
    elif not is_patient_id(patient):
        return False
    if type(timestamp) is str:
        return match_plain_timestamp(timestamp) is not None or (
            is_timestamp(timestamp) and is_plausible(timestamp)
        )
    return type(timestamp) is int and MIN_PLAUSIBLE_MS <= timestamp < MAX_PLAUSIBLE_MS


def is_patient_id(value: object) -> bool:
    """Return whether a value is a patient id: text, or an integer that is exact in every reader."""
    if type(value) is str:
        return 0 < len(value) <= MAX_PATIENT_ID_LENGTH
    return type(value) is int and -MAX_PATIENT_NUMBER <= value <= MAX_PATIENT_NUMBER


def is_medication(value: object) -> bool:
    """Return whether a value is the name of a medication."""
    return type(value) is str and 0 < len(value) <= MAX_MEDICATION_LENGTH


def convert_whole_number(value: object) -> object:
    """Return a number without a fraction as an integer, any other value unchanged."""
    if type(value) is msgspec.Raw:
        value = float(bytes(value))
    return int(value) if type(value) is float and value.is_integer() else value


def convert_whole_numbers(usage: dict[str, object]) -> None:
    """Make integers of the numbers of a valid usage's patient and time."""
    usage["patientId"] = convert_whole_number(usage["patientId"])
    usage["timestamp"] = convert_whole_number(usage["timestamp"])


IS_REQUIRED = "is required: "
"""How the error of a missing member begins."""

PATIENT_ID_RULE = (
    f"must be a string of 1 to {MAX_PATIENT_ID_LENGTH} characters,"
    f" or an integer from -{MAX_PATIENT_NUMBER} to {MAX_PATIENT_NUMBER}"
)
_TIMESTAMP_RULE = (
    "must be a JavaScript Date string, an RFC 3339 date-time, an HTTP date,"
    " or an integer of milliseconds since 1970"
)
_MEDICATION_RULE = f"must be a string of 1 to {MAX_MEDICATION_LENGTH} characters"

_RULES = {
    "patientId": (is_patient_id, PATIENT_ID_RULE),
    "timestamp": (is_timestamp, _TIMESTAMP_RULE),
    "medication": (is_medication, _MEDICATION_RULE),
}


def find_rule_errors(usage: dict[str, object]) -> Iterator[ValidationError]:
    """Yield an error for every member that is missing or breaks its rule."""
    for name, (is_valid, rule) in _RULES.items():
        if name not in usage:
            yield ValidationError(f"/{name}", f"{IS_REQUIRED}{rule}")
        elif not is_valid(convert_whole_number(usage[name])):
            yield ValidationError(f"/{name}", rule)
