"""GET / and /openapi.json."""

from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import msgspec
from sanic import Request
from sanic.response import HTTPResponse

from busyapi.api.answers import json_answer
from busyapi.api.lookup import counts
from busyapi.api.service import Service
from busyapi.errors import Refused
from busyapi.settings import Settings

# The page has one script and one style of its own and loads nothing.
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline';"
    " script-src 'unsafe-inline'; img-src data:; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Vary": "Accept",
}
CURL = (
    "curl -X POST -H 'Content-Type: application/json' --data '"
    '{"patientId":"100","timestamp":"Tue Nov 01 2016 09:11:51 GMT-0500 (CDT)",'
    '"medication":"Albuterol"}\' '
)


@cache
def _page() -> str:
    return (files("busyapi.api") / "landing.html").read_text(encoding="utf-8")


@cache
def description(settings: Settings) -> dict[str, Any]:
    """Give the contract as OpenAPI 3.1, as this process keeps it."""
    raw = (files("busyapi.api") / "openapi.json").read_bytes()
    found: dict[str, Any] = msgspec.json.decode(raw)
    found["info"]["version"] = version("busyapi")
    paths, schemas = found["paths"], found["components"]["schemas"]
    batch = paths["/api/usages/batch"]["post"]
    batch["requestBody"]["content"]["application/json"]["schema"]["maxItems"] = (
        settings.max_batch_items
    )
    if settings.validation == "lenient":
        schemas["Usage"] = schemas["UsageForm"] = {"type": "object"}
    if settings.tokens_file:
        found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for operation in (batch, paths["/api/usages"]["post"], paths["/api/usages/{id}"]["get"]):
            operation["security"] = [{"token": []}]
    _describe_head(found)
    return found


def _describe_head(description: dict[str, Any]) -> None:
    """Describe HEAD beside each GET: the same without content."""
    components = description["components"]["responses"]
    for operations in description["paths"].values():
        if "get" not in operations:
            continue
        get = operations["get"]
        bare = {}
        for status, answer in get["responses"].items():
            whole = components[answer["$ref"].rpartition("/")[2]] if "$ref" in answer else answer
            bare[status] = {name: part for name, part in whole.items() if name != "content"}
        operations["head"] = get | {
            "operationId": f"{get['operationId']}Head",
            "summary": f"{get['summary']}: the headers alone",
            "responses": bare,
        }


async def get_openapi(request: Request) -> HTTPResponse:
    """Give the API's description."""
    service: Service = request.app.ctx.service
    return service.done(request, json_answer(description(service.settings)))


async def get_landing(request: Request) -> HTTPResponse:
    """Tell a person, or a program that asks for JSON, what this is."""
    service: Service = request.app.ctx.service
    if _wants_json(request.headers.get("accept", "")):
        return service.done(request, json_answer(await _facts(service), headers={"Vary": "Accept"}))
    page = _page().replace("{{version}}", version("busyapi"))
    return service.done(
        request, HTTPResponse(page, 200, SECURITY, content_type="text/html; charset=utf-8")
    )


def _wants_json(accept: str) -> bool:
    kinds = [each.split(";")[0].strip().lower() for each in accept.split(",")]
    return "application/json" in kinds and "text/html" not in kinds


async def _facts(service: Service) -> dict[str, Any]:
    try:
        counted: dict[str, int] | None = await counts(service)
    except Refused:
        counted = None
    return {
        "name": "busyapi",
        "version": version("busyapi"),
        "counts": counted,
        "post": "/api/usages",
        "description": "/openapi.json",
        "curl": CURL + "<this address>/api/usages",
    }
