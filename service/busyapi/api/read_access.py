"""Which usages a credential may read: all, those of its tenant, or its own.

A usage that a credential may not read is answered as one that does not exist: ids count up, and a
403 would tell how many usages others have posted.
"""

from busyapi.api.stamper import Stamper
from busyapi.auth.credential import Credential
from busyapi.stamp import Stamp

READ_SCOPES = ("read", "read:own", "read:tenant")
"""A lookup needs one of these."""


def may_read(credential: Credential, stamp: Stamp | None, stamper: Stamper | None) -> bool:
    """Return whether a credential may read a usage with this stamp, or without one."""
    scopes = credential.scopes
    if "read" in scopes:
        return True
    if stamp is None:
        return False
    is_own = "read:own" in scopes and stamper and stamper.is_writer(credential, stamp)
    is_of_tenant = "read:tenant" in scopes and credential.tenant == stamp.tenant != ""
    return bool(is_own or is_of_tenant)
