"""The reference: Sanic answering 201 with a number, and doing nothing else.

It runs as an API process does: one process, the same socket options and backlog, no access log.
Its handler follows Sanic's documentation. Sanic reads the body before it calls the handler.
"""

import argparse
import sys
from itertools import count
from typing import Any

from sanic import Request, Sanic
from sanic.response import HTTPResponse, json

from busyapi.web.listener import open_listener

# As in `busyapi.api.app`, which is not imported here: its modules would take memory.
LISTEN_BACKLOG = 4096
IDLE_SECONDS = 120

LISTENING = "listening"

_numbers = count(1)


async def post_usage(_: Request) -> HTTPResponse:
    """Answer as if the usage were stored."""
    return json({"id": next(_numbers)}, 201)


def make_app() -> Sanic[Any, Any]:
    """Build the application."""
    app: Sanic[Any, Any] = Sanic("noop", configure_logging=False)
    app.config.update(ACCESS_LOG=False, MOTD=False, KEEP_ALIVE_TIMEOUT=IDLE_SECONDS)
    app.add_route(post_usage, "/api/usages", methods=["POST"])
    app.register_listener(_report_listening, "after_server_start")
    return app


async def _report_listening(_: Sanic[Any, Any]) -> None:
    # On a shared port a request does not show which processes are listening.
    sys.stdout.write(f"{LISTENING}\n")
    sys.stdout.flush()


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m bench.noop", description=main.__doc__)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    make_app().run(
        sock=open_listener(port, "--port"),
        backlog=LISTEN_BACKLOG,
        single_process=True,
        access_log=False,
        motd=False,
    )


if __name__ == "__main__":
    main()
