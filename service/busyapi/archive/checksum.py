"""The checksum of partition.json, a member of the file itself.

0.2.0 ignores this member, and drops it when it rewrites the file. So a file without a checksum is
valid, and a file with a wrong one is damaged.
"""

import json
from typing import Any
from zlib import crc32

MEMBER = "crc"


def compute_checksum(members: dict[str, Any]) -> str:
    """Return the CRC-32 of the other members: sorted JSON without spaces, in 8 hex digits."""
    others = {name: value for name, value in members.items() if name != MEMBER}
    text = json.dumps(others, sort_keys=True, separators=(",", ":"))
    return f"{crc32(text.encode()):08x}"


def add_checksum(members: dict[str, Any]) -> dict[str, Any]:
    """Return the members together with their checksum."""
    return members | {MEMBER: compute_checksum(members)}


def has_valid_checksum(content: Any) -> bool:
    """Return whether the checksum is correct or absent."""
    if not isinstance(content, dict) or MEMBER not in content:
        return True
    return bool(content[MEMBER] == compute_checksum(content))
