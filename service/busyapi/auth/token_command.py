"""`busyapi token create`: a new token, and the entry for the file of credentials."""

import argparse
import json
import re
import secrets
from hashlib import sha256
from typing import Any

from busyapi.auth.credential import SCOPES
from busyapi.auth.token_file import parse_token_file
from busyapi.output import write_output
from busyapi.settings import Settings

TOKEN_BYTES = 32
TOKEN_PREFIX = "busyapi_"  # noqa: S105 - scanners of secrets recognize it
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
EPILOG = """\
The token is printed once and stored nowhere: give it to the client. The entry has only its digest:
append it to the file that BUSYAPI_TOKENS_FILE names. Running processes read it within seconds.

example:
  busyapi token create clinic-7 --scopes write,read:own --expires 2027-01-01
"""


def add_command(commands: Any) -> None:
    """Add `token`."""
    parser = commands.add_parser("token", help="create tokens for clients")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    create = actions.add_parser(
        "create",
        help="print a new token, and its entry for the file of credentials",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    create.add_argument("name", metavar="NAME", help="its name in logs, such as clinic-7")
    create.add_argument(
        "--scopes",
        required=True,
        metavar="SCOPES",
        help=f"what it may do: some of {', '.join(sorted(SCOPES))}, separated by commas",
    )
    create.add_argument("--expires", metavar="DATE", help="such as 2027-01-01")
    create.add_argument("--tenant", metavar="NAME", help="the tenant that it belongs to")
    create.add_argument("--rate", metavar="N", type=float, help="usages per second")
    create.add_argument(
        "--patient-id", metavar="ID", help="the only patient whose usages it may send or read"
    )
    create.set_defaults(run=_create)


def _create(options: argparse.Namespace, _: Settings) -> int:
    token = TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
    entry = render_entry(options, token)
    parse_token_file(entry.encode())  # raises ConfigError for an invalid option
    write_output(f"token, shown only now:\n{token}\n\nentry for the file:\n{entry}")
    return 0


def render_entry(options: argparse.Namespace, token: str) -> str:
    """Return the entry of a token."""
    members: dict[str, Any] = {
        "sha256": sha256(token.encode()).hexdigest(),
        "scopes": [scope.strip() for scope in options.scopes.split(",")],
        "tenant": options.tenant,
        "rate": options.rate,
        "patient_id": options.patient_id,
    }
    lines = [f"{name} = {_quote(value)}" for name, value in members.items() if value is not None]
    if options.expires:
        lines.append(f"expires = {options.expires}")
    name = options.name if BARE_KEY.fullmatch(options.name) else _quote(options.name)
    return "\n".join([f"[tokens.{name}]", *lines, ""])


def _quote(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)  # a TOML value too
