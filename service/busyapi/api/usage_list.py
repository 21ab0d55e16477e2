"""The handler of GET /api/usages: the usages of a patient, page by page.

for each partition:  stream ──> archive, up to what the stream begins with ──> page
all of them ──merge by id──> page of the answer ──> audit trail ──> answer
"""

import asyncio

from sanic import Request
from sanic.response import HTTPResponse

from busyapi.api.archived_page import read_archived
from busyapi.api.buffered_page import read_buffered
from busyapi.api.context import ApiContext, make_handler
from busyapi.api.list_request import ListRequest
from busyapi.api.page_cursor import Item, Page, PartitionPage, merge_pages, position_of
from busyapi.api.read_access import READ_SCOPES, find_visible_stamps, may_read
from busyapi.api.responses import JSON
from busyapi.api.usage_query import parse_query
from busyapi.ids import Seq
from busyapi.web.problems import NO_STORE_HEADERS
from busyapi.web.protocol import request_id_of

MAX_PAGE_BYTES = 4 << 20


@make_handler
async def list_usages(context: ApiContext, request: Request) -> HTTPResponse:
    """Return a page of the usages of a patient."""
    credential = await context.authorizer.authorize(request, *READ_SCOPES)
    query = parse_query(request.query_string, credential.patient_id)
    async with context.queries.take(context.authorizer.name_client(request, credential)):
        page = await _read_page(
            ListRequest(
                context,
                query,
                request_id_of(request),
                find_visible_stamps(credential, context.stamper),
                lambda stamped: may_read(credential, stamped, context.stamper),
            )
        )
        if context.audit:
            await context.audit.record_query(request, credential.name, query)
    limits = context.authorizer.limit_headers_of(request, credential)
    return HTTPResponse(_render(page), 200, NO_STORE_HEADERS | limits, JSON)


async def _read_page(request: ListRequest) -> Page:
    numbers = await request.context.finder.read_states()
    pages = await asyncio.gather(
        *(_read_partition(request, number) for number in numbers), return_exceptions=True
    )
    complete: list[PartitionPage] = []
    for page in pages:
        if isinstance(page, BaseException):
            raise page
        complete.append(page)
    return merge_pages(complete, request.query.after, request.query.limit, MAX_PAGE_BYTES)


async def _read_partition(request: ListRequest, number: int) -> PartitionPage:
    after = position_of(request.query.after, number)
    buffered = await read_buffered(request, number, after)
    items: list[Item] = []
    last = buffered.archived_through
    if last > after:
        items, through = await read_archived(request, number, Seq(after + 1), last)
        if through < last:
            return PartitionPage(number, buffered.strides, items, through, is_end=False)
    items += buffered.items
    return PartitionPage(number, buffered.strides, items, buffered.through, buffered.is_end)


def _render(page: Page) -> bytes:
    has_more = b"true" if page.has_more else b"false"
    usages = b",".join(page.usages)
    return b'{"usages":[%b],"next":"%b","more":%b}' % (usages, page.cursor.encode(), has_more)
