"""The only error of this package."""


class ReleaseError(Exception):
    """A release cannot be made or must not be used. The message says why, then what to do."""
