"""`python -m bench`."""

import signal
import sys

from bench.cli import main

# As Ctrl-C does it: everything is stopped and removed on the way out.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
sys.exit(main())
