"""Handlers of GET / and /openapi.json."""

from contextlib import suppress
from functools import cache
from html import escape
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import msgspec
from sanic import Request
from sanic.response import HTTPResponse

from busyapi.api.context import ApiContext, make_handler
from busyapi.api.lookup import count_usages
from busyapi.api.responses import make_json_response
from busyapi.errors import Refused
from busyapi.settings import Settings

# The page has one inline script and one inline style, and loads nothing else.
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline';"
    " script-src 'unsafe-inline'; img-src data:; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Vary": "Accept",
}
CURL_COMMAND = (
    "curl -X POST -H 'Content-Type: application/json' --data '"
    '{"patientId":"100","timestamp":"Tue Nov 01 2016 09:11:51 GMT-0500 (CDT)",'
    '"medication":"Albuterol"}\' '
)
CREDENTIAL_FIELD = (
    '<label class="wide">token (required here, and not kept)'
    ' <input name="token" type="password" autocomplete="off" required></label>'
)
SECURITY_SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "description": "A token. Its scopes: `write` to post usages, `read` to read and count them.",
}
OPERATIONS = (
    ("write", "/api/usages", "post"),
    ("write", "/api/usages/batch", "post"),
    ("read", "/api/usages", "get"),
    ("read", "/api/usages/{id}", "get"),
    ("read", "/api/usages/count", "get"),
)
"""The operations that need a scope."""
AUTHORIZATION = ' -H "Authorization: Bearer $TOKEN"'


@cache
def render_landing_page(settings: Settings) -> str:
    """Render the landing page. Without JavaScript it shows everything but the counts."""
    page = (files("busyapi.api") / "landing.html").read_text(encoding="utf-8")
    may_post = "write" in settings.anonymous_scopes
    values = {
        "version": escape(version("busyapi")),
        "port": str(settings.port),
        "token": "" if may_post else CREDENTIAL_FIELD,
        "authorization": "" if may_post else AUTHORIZATION,
        "rows": _render_rows(describe_api(settings)),
    }
    for name, value in values.items():
        page = page.replace(f"{{{{{name}}}}}", value)
    return page


def _render_rows(description: dict[str, Any]) -> str:
    """Render the operations as table rows, without HEAD, which answers as GET does."""
    return "\n".join(
        _render_row(path, method, operation)
        for path, operations in description["paths"].items()
        for method, operation in operations.items()
        if method != "head"
    )


def _render_row(path: str, method: str, operation: dict[str, Any]) -> str:
    name = f"<code>{method.upper()} {escape(path)}</code>"
    # An Ingress routes the API and its description, but no probes. A list needs a patient.
    is_linked = path.startswith(("/api/usages/", "/openapi")) and "{" not in path
    if method == "get" and is_linked:
        name = f'<a href="{escape(path)}">{name}</a>'
    cells = (name, escape(operation["summary"]), " ".join(operation["responses"]))
    return "<tr>" + "".join(f"<td>{cell}" for cell in cells)


@cache
def describe_api(settings: Settings) -> dict[str, Any]:
    """Return the HTTP contract under these settings, as OpenAPI 3.1."""
    raw = (files("busyapi.api") / "openapi.json").read_bytes()
    document: dict[str, Any] = msgspec.json.decode(raw)
    document["info"]["version"] = version("busyapi")
    paths, schemas = document["paths"], document["components"]["schemas"]
    batch = paths["/api/usages/batch"]["post"]
    batch["requestBody"]["content"]["application/json"]["schema"]["maxItems"] = (
        settings.max_batch_items
    )
    if settings.validation == "lenient":
        schemas["Usage"] = schemas["UsageForm"] = {"type": "object"}
    guarded = [
        paths[path][method]
        for scope, path, method in OPERATIONS
        if scope not in settings.anonymous_scopes
    ]
    for operation in guarded:
        operation["security"] = [{"token": []}]
    if guarded:
        document["components"]["securitySchemes"] = {"token": SECURITY_SCHEME}
    _add_head_operations(document)
    return document


def _add_head_operations(description: dict[str, Any]) -> None:
    """Add HEAD to each path with GET: the same responses without their content."""
    components = description["components"]["responses"]
    for operations in description["paths"].values():
        if "get" not in operations:
            continue
        get = operations["get"]
        responses = {}
        for status, entry in get["responses"].items():
            response = components[entry["$ref"].rpartition("/")[2]] if "$ref" in entry else entry
            responses[status] = {name: part for name, part in response.items() if name != "content"}
        operations["head"] = get | {
            "operationId": f"{get['operationId']}Head",
            "summary": f"{get['summary']}: headers only",
            "responses": responses,
        }


@make_handler
async def get_openapi(context: ApiContext, _: Request) -> HTTPResponse:
    """Return the description of the API."""
    return make_json_response(describe_api(context.settings))


@make_handler
async def get_landing(context: ApiContext, request: Request) -> HTTPResponse:
    """Return the landing page, or its main facts as JSON to a client that accepts only JSON."""
    if _prefers_json(request.headers.get("accept", "")):
        facts = await _collect_facts(context)
        return make_json_response(facts, headers={"Vary": "Accept"})
    page = render_landing_page(context.settings)
    return HTTPResponse(page, 200, SECURITY_HEADERS, content_type="text/html; charset=utf-8")


def _prefers_json(accept: str) -> bool:
    types = [media_range.split(";")[0].strip().lower() for media_range in accept.split(",")]
    return "application/json" in types and "text/html" not in types


async def _collect_facts(context: ApiContext) -> dict[str, Any]:
    counts: dict[str, int] | None = None
    if "read" in context.authorizer.anonymous.scopes:
        with suppress(Refused):
            counts = await count_usages(context)
    return {
        "name": "busyapi",
        "version": version("busyapi"),
        "counts": counts,
        "post": "/api/usages",
        "description": "/openapi.json",
        "curl": CURL_COMMAND + "<this address>/api/usages",
    }
