"""Checks whether a committer may work under a partition's record."""

from busyapi.errors import NotSeeded, PartitionMismatch
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.state import PartitionState


def check_record(
    state: PartitionState, endpoint: Endpoint, partition: int, partitions: int
) -> None:
    """Compare a record with the settings of an API process.

    Raises:
        PartitionMismatch: the installation cannot have so few partitions.
        NotSeeded: the flusher is of another installation or version.
    """
    if state.strides and partitions < state.strides.base:
        raise PartitionMismatch(
            f"this installation was made with {state.strides.base} partitions,"
            f" BUSYAPI_PARTITIONS says {partitions}: it cannot be less than at install"
        )
    if state.installation not in {"", endpoint.installation}:
        raise NotSeeded(
            f"partition {partition} belongs to installation {state.installation!r},"
            f" BUSYAPI_INSTALLATION says {endpoint.installation!r}: two installations on one Redis"
            " need different BUSYAPI_KEY_PREFIX"
        )
    if state.epoch and state.entry_version < endpoint.entry_version:
        # That flusher would set such entries aside, as 0.2.0 does, or halt.
        raise NotSeeded(
            f"the flusher of partition {partition} cannot read stamped usages: upgrade it, or unset"
            " BUSYAPI_WRITER_SALT_FILE"
        )
