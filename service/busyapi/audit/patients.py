"""Digests of patient ids, with which records name the patient of a query.

Without the key, which is beside the files and in no record, a digest does not lead to its patient.
Who has the volume has the key, and can try patient ids; but that person has the archive too.
"""

import os
import secrets
from hashlib import sha256
from hmac import new as hmac
from pathlib import Path

from busyapi.archive.fsync import write_small_file
from busyapi.audit.files import SALT_NAME, give_to_owner, make_audit_folder
from busyapi.audit.lock import lock_trail

DIGEST_CHARACTERS = 16


def create_salt(folder: Path) -> None:
    """Create the key of a trail, if it has none.

    Raises:
        ArchiveLocked, FsyncFailed, OSError: it cannot be created.
    """
    make_audit_folder(folder)
    with lock_trail(folder):
        if not (folder / SALT_NAME).exists():
            write_small_file(folder / SALT_NAME, secrets.token_hex(32).encode() + b"\n")
            fd = os.open(folder / SALT_NAME, os.O_RDONLY)
            try:
                give_to_owner(fd, folder)
            finally:
                os.close(fd)


def digest_patient(folder: Path, patient: str) -> str:
    """Return the digest of a patient id in this trail, "" if the trail has no key.

    Raises:
        OSError: the key cannot be read.
    """
    try:
        salt = (folder / SALT_NAME).read_bytes().strip()
    except FileNotFoundError:
        return ""
    return hmac(salt, patient.encode(), sha256).hexdigest()[:DIGEST_CHARACTERS]


def digest_with_key(folder: Path, patient: str) -> str:
    """Return the digest of a patient id, after the key was created if there was none.

    Raises:
        ArchiveLocked, FsyncFailed, OSError: there is no key.
    """
    if not (digest := digest_patient(folder, patient)):
        create_salt(folder)
        digest = digest_patient(folder, patient)
    return digest
