"""The one error of this package: a release cannot be made, or must not be trusted."""


class ReleaseError(Exception):
    """The message says what is wrong, then what to do."""
