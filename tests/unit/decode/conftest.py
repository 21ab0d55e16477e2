"""A busy machine is no failure: examples may take their time, the run as a whole may not."""

from hypothesis import settings

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
