"""The usages of a list that are archived: the flusher of each partition reads them."""

import json
from typing import Any, NamedTuple

from busyapi.api.archive_client import ArchiveUnavailable
from busyapi.api.list_request import ListRequest
from busyapi.api.page_cursor import Item
from busyapi.ids import Seq, UsageId
from busyapi.stamp import split_archived_stamp

_ID = b'{"id":'


class ArchivedPage(NamedTuple):
    """The usages up to a seq."""

    items: list[Item]
    through: Seq


async def read_archived(
    request: ListRequest, partition: int, first: Seq, last: Seq
) -> ArchivedPage:
    """Read the usages from a seq on, up to another one or a limit of the flusher.

    Raises:
        ArchiveUnavailable: the flusher cannot read its archive.
        QueriesBusy: it reads for others.
    """
    query = request.query
    members: dict[str, Any] = {
        "first": first,
        "last": last,
        "usages": query.limit,
        "patient": query.patient,
        "since_ms": query.since_ms,
        "until_ms": query.until_ms,
        "medications": [] if query.medication is None else [query.medication],
        "visible": request.visible,
    }
    body = await request.context.archive.read_page(
        partition, json.dumps(members).encode(), request.request_id
    )
    head, _, lines = body.partition(b"\n")
    answer = json.loads(head)
    through = Seq(answer["through"])
    if not first <= through <= last:
        raise ArchiveUnavailable
    items = []
    for seq, line in zip(answer["seqs"], lines.split(b"\n")[:-1], strict=True):
        stamped = split_archived_stamp(line)
        if request.may_read(stamped):
            usage_id = UsageId(int(line[len(_ID) : line.index(b",")]))
            items.append(Item(usage_id, Seq(seq), stamped.usage))
    return ArchivedPage(items, through)
