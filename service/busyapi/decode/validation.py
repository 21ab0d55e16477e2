"""The rules of strict validation for the three named members of a usage."""

from collections.abc import Iterator

from busyapi.decode.timestamp import is_timestamp, match_plain_timestamp
from busyapi.errors import ValidationError
from busyapi.ids import MAX_ID

MAX_PATIENT_ID_LENGTH = 128
"""Characters. A character is a Unicode code point, as for maxLength of JSON Schema."""

MAX_MEDICATION_LENGTH = 256
"""Characters, counted in the same way."""


def is_object(value: object) -> bool:
    """Return whether a value is a usage to lenient validation, which accepts any JSON object."""
    return type(value) is dict


def is_usage(value: object) -> bool:
    """Return whether a value is a usage to strict validation, fast and without a reason."""
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
    is_plain = type(timestamp) is str and match_plain_timestamp(timestamp) is not None
    return is_plain or is_timestamp(timestamp)


def is_patient_id(value: object) -> bool:
    """Return whether a value is a patient id: text, or an integer that is exact in every parser."""
    if type(value) is str:
        return 0 < len(value) <= MAX_PATIENT_ID_LENGTH
    return type(value) is int and -MAX_ID <= value <= MAX_ID


def is_medication(value: object) -> bool:
    """Return whether a value is the name of a medication."""
    return type(value) is str and 0 < len(value) <= MAX_MEDICATION_LENGTH


IS_REQUIRED = "is required: "
"""How the error of a missing member begins."""

_PATIENT_ID_RULE = (
    f"must be a string of 1 to {MAX_PATIENT_ID_LENGTH} characters,"
    f" or an integer from -{MAX_ID} to {MAX_ID}"
)
_TIMESTAMP_RULE = (
    "must be a JavaScript Date string, an RFC 3339 date-time, an HTTP date,"
    " or an integer of milliseconds since 1970"
)
_MEDICATION_RULE = f"must be a string of 1 to {MAX_MEDICATION_LENGTH} characters"

_RULES = {
    "patientId": (is_patient_id, _PATIENT_ID_RULE),
    "timestamp": (is_timestamp, _TIMESTAMP_RULE),
    "medication": (is_medication, _MEDICATION_RULE),
}


def find_rule_errors(usage: dict[str, object]) -> Iterator[ValidationError]:
    """Yield an error for every member that is missing or breaks its rule."""
    for name, (is_valid, rule) in _RULES.items():
        if name not in usage:
            yield ValidationError(f"/{name}", f"{IS_REQUIRED}{rule}")
        elif not is_valid(usage[name]):
            yield ValidationError(f"/{name}", rule)
