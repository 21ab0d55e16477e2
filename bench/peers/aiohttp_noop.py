"""aiohttp answering 201 with a number, written as in its documentation."""

import argparse
from itertools import count

import uvloop
from aiohttp import web

_numbers = count(1)


async def post_usage(request: web.Request) -> web.Response:
    """Answer as if the usage were stored."""
    await request.read()
    return web.json_response({"id": next(_numbers)}, status=201)


def main() -> None:
    """Serve until SIGTERM, on uvloop as Sanic does."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers.aiohttp_noop")
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    uvloop.install()
    app = web.Application()
    app.add_routes([web.post("/api/usages", post_usage)])
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None, backlog=4096)


if __name__ == "__main__":
    main()
