"""A request for a list of usages, as its steps share it."""

from collections.abc import Callable
from dataclasses import dataclass

from busyapi.api.context import ApiContext
from busyapi.api.usage_query import UsageQuery
from busyapi.stamp import StampedUsage


@dataclass(frozen=True)
class ListRequest:
    """What is asked for, and what the client may see of it."""

    context: ApiContext
    query: UsageQuery
    request_id: str
    visible: dict[str, str] | None
    """The stamps of the usages that the client may see; None: it may see all. So a page ends where
    it would end if there were no other usages, and reveals nothing about them."""
    may_read: Callable[[StampedUsage], bool]
    """Decides about each usage."""
