"""The patient id of a usage's line."""

from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec


class _PatientOnly(msgspec.Struct):
    patientId: Any = None  # noqa: N815 - as devices send it


class _PatientText(msgspec.Struct):
    patientId: msgspec.Raw  # noqa: N815


class _Rendered(msgspec.Struct):
    usage: _PatientOnly


_decoder = msgspec.json.Decoder(_PatientOnly)
_text_decoder = msgspec.json.Decoder(_PatientText)
_rendered_decoder = msgspec.json.Decoder(_Rendered)


def extract_patient_id(line: bytes) -> bytes:
    """Return the patient id of a line as JSON text; a number equals the string of its digits.

    This process has checked and rendered the line, so a typed struct may skip the rest of it.
    """
    return _encode(_decoder.decode(line).patientId)


def is_integer_as_sent(raw: bytes) -> bool:
    """Return whether the digits of a usage's patient id, a number, denote an integer.

    A double rounds `4503599627370497.3` and `1e-400` to integers, which are other patients.
    """
    try:
        number = Decimal(bytes(_text_decoder.decode(raw).patientId).decode())
    except InvalidOperation:  # its exponent has too many digits
        return False
    return number == number.to_integral_value()


def extract_rendered_patient_id(line: bytes) -> bytes:
    """Return the patient id of a usage as lookups render it, in the same form."""
    return _encode(_rendered_decoder.decode(line).usage.patientId)


def _encode(patient: Any) -> bytes:
    return msgspec.json.encode(str(patient) if type(patient) is int else patient)
