"""The checksum of partition.json, in the file itself.

It is an extra member: 0.2.0 passes over it, and drops it when it writes the file. So without it the
file is taken as it is, and with a wrong one it is damaged.
"""

import json
from typing import Any
from zlib import crc32

MEMBER = "crc"


def compute_checksum(said: dict[str, Any]) -> str:
    """Return the CRC-32 of the other members: sorted JSON without spaces, in 8 hex digits."""
    others = {name: value for name, value in said.items() if name != MEMBER}
    text = json.dumps(others, sort_keys=True, separators=(",", ":"))
    return f"{crc32(text.encode()):08x}"


def add_checksum(said: dict[str, Any]) -> dict[str, Any]:
    """Return the members with the checksum that they have."""
    return said | {MEMBER: compute_checksum(said)}


def has_valid_checksum(said: Any) -> bool:
    """Tell whether the checksum is right, or not there."""
    return (
        not isinstance(said, dict) or MEMBER not in said or said[MEMBER] == compute_checksum(said)
    )
