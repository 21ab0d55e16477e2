"""Which buffered usages cannot be lost any more: in the tier `replicated`, not all of the stream.

The stream also has usages whose commit no replica has confirmed. If the primary is lost now,
another usage gets the id. What a later commit of this process or the archive covers stays. But a
commit to another server proves nothing: the reader may still read from a former primary.
"""

from busyapi.api.context import ApiContext
from busyapi.ids import MAX_ID, Seq
from busyapi.stream.state import PartitionState


def is_same_server(context: ApiContext, partition: int, state: PartitionState) -> bool:
    """Return whether this process commits to the server with this record."""
    # This process has no committer for a partition that has left.
    committer = next(iter(context.committers.committers[partition:]), None)
    session = committer.session if committer else None
    return bool(session and session.server_id == state.server_id)


def find_confirmed_seq(context: ApiContext, partition: int, state: PartitionState) -> Seq:
    """Return the seq up to which the usages of a partition stay."""
    if context.settings.durability != "replicated":
        return Seq(MAX_ID)
    if is_same_server(context, partition, state):
        return max(state.archived, context.committers.committers[partition].highest_seq)
    return state.archived
