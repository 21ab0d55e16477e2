"""Whose usage a line is."""

from typing import Any

import msgspec


class _PatientOnly(msgspec.Struct):
    patientId: Any = None  # noqa: N815 - as devices send it


_decoder = msgspec.json.Decoder(_PatientOnly)


def extract_patient_id(line: bytes) -> bytes:
    """Return the patient id of a usage's line as JSON text: a number is the same as its digits.

    The line was checked and rendered here, so a typed struct may pass over the rest of it.
    """
    found = _decoder.decode(line).patientId
    return msgspec.json.encode(str(found) if type(found) is int else found)
