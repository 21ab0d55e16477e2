"""Which buffered usages cannot be lost any more: in the tier `replicated`, not all of the stream.

The stream also has usages whose commit no replica has confirmed. If the primary is lost now,
another usage gets the id. What a later commit of this process or the archive covers stays. But a
commit to another server proves nothing: the reader may still read from a former primary.
"""

from busyapi.api.context import ApiContext
from busyapi.commit.committer import Committer
from busyapi.ids import MAX_ID, Seq
from busyapi.stream.state import PartitionState


def find_confirmed_seq(context: ApiContext, partition: int, state: PartitionState) -> Seq:
    """Return the seq up to which the usages of a partition stay."""
    if context.settings.durability != "replicated":
        return Seq(MAX_ID)
    committer = _find_committer(context, partition)
    session = committer.session if committer else None
    if committer and session and session.server_id == state.server_id:
        return max(state.archived, committer.highest_seq)
    return state.archived


def is_former_server(context: ApiContext, partition: int, state: PartitionState) -> bool:
    """Return whether this process commits to another server than the one with this record."""
    committer = _find_committer(context, partition)
    session = committer.session if committer else None
    return bool(session and session.server_id != state.server_id)


def _find_committer(context: ApiContext, partition: int) -> Committer | None:
    # This process has none for a partition that has left.
    return next(iter(context.committers.committers[partition:]), None)
