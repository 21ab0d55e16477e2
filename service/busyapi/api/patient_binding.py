"""A credential may be bound to one patient: it may send usages of that patient only.

`read_access` does the same for lookups.
"""

from itertools import islice

import msgspec

from busyapi.decode.batch import DecodedBatch
from busyapi.decode.diagnose import MAX_ERRORS
from busyapi.decode.incremental import Incremental
from busyapi.decode.patient_id import extract_patient_id
from busyapi.web.problems import Problem

STEP_LINES = 256
"""Lines that are checked without a break."""


def is_bound_to(line: bytes, patient_id: str) -> bool:
    """Return whether a line is a usage of this patient."""
    return extract_patient_id(line) == msgspec.json.encode(patient_id)


def check_single(work: Incremental[bytes], patient_id: str) -> Incremental[bytes]:
    """Do the work, and check the patient of its line.

    Raises:
        Problem: 403, another patient's usage.
    """
    line = yield from work
    if not is_bound_to(line, patient_id):
        raise _refuse(["/patientId"])
    return line


def check_batch(work: Incremental[DecodedBatch], patient_id: str) -> Incremental[DecodedBatch]:
    """Do the work, and check the patient of each line, in steps.

    Raises:
        Problem: 403, a usage of another patient; nothing is stored.
    """
    batch = yield from work
    lines = batch.lines
    pointers: list[str] = []
    for start in range(0, len(lines), STEP_LINES):
        if start:
            yield
        group = enumerate(islice(lines, start, start + STEP_LINES), start)
        pointers += [f"/{n}/patientId" for n, line in group if not is_bound_to(line, patient_id)]
        if len(pointers) >= MAX_ERRORS:
            break
    if pointers:
        raise _refuse(pointers[:MAX_ERRORS])
    return batch


def _refuse(pointers: list[str]) -> Problem:
    detail = "is not the patient of this credential"
    errors = [{"pointer": pointer, "detail": detail} for pointer in pointers]
    return Problem(403, "This credential may send usages of one patient only.", errors=errors)
