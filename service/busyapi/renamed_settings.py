"""Settings that were renamed: for one release the old name is accepted, with a warning.

To rename another one, add it to `RENAMED`. Remove an entry one release later.
"""

from collections.abc import Mapping

import structlog

log = structlog.get_logger()

RENAMED = {"BUSYAPI_FAST_LANE": "BUSYAPI_FAST_PATH"}
"""Old names and their new ones."""


def apply_new_names(variables: Mapping[str, str]) -> Mapping[str, str]:
    """Return the variables with renamed ones under their new names, which win if both are set."""
    renamed = {
        new: variables[old]
        for old, new in RENAMED.items()
        if variables.get(old) and not variables.get(new)
    }
    return {**variables, **renamed}


def warn_of_old_names(variables: Mapping[str, str]) -> None:
    """Log each old name that is set, and whether it is ignored because its new name is set too."""
    for old, new in RENAMED.items():
        if variables.get(old):
            ignored = bool(variables.get(new))
            log.warning("setting_renamed", setting=old, use=new, ignored=ignored)
