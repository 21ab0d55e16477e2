"""The patient id of a usage's line."""

from typing import Any

import msgspec


class _PatientOnly(msgspec.Struct):
    patientId: Any = None  # noqa: N815 - as devices send it


class _Rendered(msgspec.Struct):
    usage: _PatientOnly


_decoder = msgspec.json.Decoder(_PatientOnly)
_rendered_decoder = msgspec.json.Decoder(_Rendered)


def extract_patient_id(line: bytes) -> bytes:
    """Return the patient id of a line as JSON text; a number equals the string of its digits.

    This process has checked and rendered the line, so a typed struct may skip the rest of it.
    """
    return _encode(_decoder.decode(line).patientId)


def extract_rendered_patient_id(line: bytes) -> bytes:
    """Return the patient id of a usage as lookups render it, in the same form."""
    return _encode(_rendered_decoder.decode(line).usage.patientId)


def _encode(patient: Any) -> bytes:
    return msgspec.json.encode(str(patient) if type(patient) is int else patient)
