"""The patient id of a usage's line."""

from typing import Any

import msgspec


class _PatientOnly(msgspec.Struct):
    patientId: Any = None  # noqa: N815 - as devices send it


_decoder = msgspec.json.Decoder(_PatientOnly)


def extract_patient_id(line: bytes) -> bytes:
    """Return the patient id of a line as JSON text; a number equals the string of its digits.

    This process has checked and rendered the line, so a typed struct may skip the rest of it.
    """
    patient = _decoder.decode(line).patientId
    return msgspec.json.encode(str(patient) if type(patient) is int else patient)
