"""Which usages a credential may read: all, those of its tenant, or its own.

A credential that is bound to a patient reads only usages of this patient, whatever its scopes.

A usage that a credential may not read is answered as one that does not exist: ids count up, and a
403 would reveal how many usages others have posted.
"""

import msgspec

from busyapi.api.stamper import Stamper
from busyapi.auth.credential import Credential
from busyapi.decode.patient_id import extract_rendered_patient_id
from busyapi.stamp import Stamp, StampedUsage

READ_SCOPES = ("read", "read:own", "read:tenant")
"""A lookup needs one of these."""


def reads_all(credential: Credential) -> bool:
    """Return whether a credential may read every usage."""
    return "read" in credential.scopes and credential.patient_id is None


def may_read(credential: Credential, stamped: StampedUsage, stamper: Stamper | None) -> bool:
    """Return whether a credential may read a rendered usage with this stamp, or without one."""
    scopes, patient, stamp = credential.scopes, credential.patient_id, stamped.stamp
    if patient is not None and extract_rendered_patient_id(stamped.usage) != msgspec.json.encode(
        patient
    ):
        return False
    if "read" in scopes:
        return True
    if stamp is None:
        return False
    is_own = "read:own" in scopes and is_writer(credential, stamp, stamper)
    is_of_tenant = "read:tenant" in scopes and credential.tenant == stamp.tenant != ""
    return is_own or is_of_tenant


def is_writer(credential: Credential, stamp: Stamp | None, stamper: Stamper | None) -> bool:
    """Return whether a usage with this stamp, or without one, was posted with a credential."""
    return bool(stamper and stamp and stamper.is_writer(credential, stamp))


def find_visible_stamps(credential: Credential, stamper: Stamper | None) -> dict[str, str] | None:
    """Return tenant and writer of the usages that a credential may read, None if it needs neither.

    One that is "" is that of no usage.
    """
    if "read" in credential.scopes:
        return None
    may_read_own = stamper and "read:own" in credential.scopes
    return {
        "tenant": credential.tenant if "read:tenant" in credential.scopes else "",
        "writer": stamper.find_writer(credential) if stamper and may_read_own else "",
    }
