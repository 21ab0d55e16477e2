"""Which usages are of a patient: by a search of bytes first, then by the value.

The search finds every line that may match, and a few others. So only these are parsed.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")


def render_member(name: str, value: str) -> bytes:
    """Return a member as a line has it, if its text needs no escape."""
    return f'"{name}":{json.dumps(value, ensure_ascii=False)}'.encode()


def patient_patterns(patients: Iterable[str]) -> Iterator[bytes]:
    """Yield what each line of one of the patients has, unless it has a backslash."""
    for patient in patients:
        yield render_member("patientId", patient)
        if _INTEGER.fullmatch(patient):
            yield f'"patientId":{patient}'.encode()
        if patient == "0":
            yield b'"patientId":-0'


def is_patient(value: Any, patients: Collection[str]) -> bool:
    """Return whether a parsed `patientId` is one of the patients: 100 and "100" are the same."""
    # `type`, not `isinstance`: True is an int.
    return type(value) in {str, int} and str(value) in patients
