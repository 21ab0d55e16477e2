"""`python -m busyapi`."""

import sys

from busyapi.cli import main

sys.exit(main())
