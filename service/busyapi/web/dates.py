"""The Date header (RFC 9110, section 6.6.1), formatted once per second."""

from email.utils import formatdate
from functools import lru_cache
from time import time


def current_http_date() -> str:
    """Return the current time in HTTP's format."""
    return format_http_date(int(time()))


@lru_cache(1)
def format_http_date(second: int) -> str:
    """Return a time, in seconds since 1970, in HTTP's format."""
    return formatdate(second, usegmt=True)
