"""`python -m bench`."""

import signal
import sys

from bench.cli import main

# Exit as on Ctrl-C: the `finally` blocks stop and remove everything.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
sys.exit(main())
