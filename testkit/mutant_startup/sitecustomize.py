"""Apply the mutants that the environment names. If one fails, the process must not run."""
# ruff: noqa: INP001 - Python imports it by its name, from PYTHONPATH

import os
import traceback

try:
    from testkit import mutants
    from testkit.broken_build import VARIABLE

    for name in os.environ[VARIABLE].split(","):
        getattr(mutants, name)()
except BaseException:  # noqa: BLE001 - Python would continue after an error here
    traceback.print_exc()
    os._exit(70)
