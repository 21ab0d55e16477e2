"""The settings of a server that refuses CONFIG GET: what INFO reports, and what is trusted.

    CONFIG GET    the settings that it reports are checked, whatever is trusted
    INFO          reports `appendonly` and `maxmemory-policy`: these are checked too
    the operator  BUSYAPI_REDIS_TRUST names what neither reports

Managed services refuse CONFIG. So may an ACL, because CONFIG GET also prints the passwords in the
settings. docs/how-to/managed-redis.md says which service needs which trust, and what a 201 means
then.
"""

from typing import NamedTuple

APPENDFSYNC = "appendfsync"
SERVICE_LOG = "service-log"

TRUSTED_SETTINGS: dict[str, frozenset[str]] = {
    "": frozenset(),
    APPENDFSYNC: frozenset({"appendfsync", "no-appendfsync-on-rewrite"}),
    # A service with a log of its own may report that it has no append-only file.
    SERVICE_LOG: frozenset({"appendonly", "appendfsync", "no-appendfsync-on-rewrite"}),
}
"""By the value of BUSYAPI_REDIS_TRUST. No value covers `maxmemory-policy`: every server reports it
in INFO."""

ADVICE = (
    "allow it in the ACL (`+config|get`). If the server has no CONFIG, set"
    " BUSYAPI_REDIS_TRUST=appendfsync, but only if you know that `appendfsync always` is in force"
    " there, or BUSYAPI_REDIS_TRUST=service-log, but only if the service stores each write in a"
    " durable log of its own before it replies. Otherwise a 201 would promise more than Redis keeps"
)


class SettingsReport(NamedTuple):
    """The settings that a server reports, and the ones that are trusted because it does not."""

    values: dict[str, str]
    trusted: frozenset[str]

    def describe_unmet(self, required: dict[str, str]) -> list[str]:
        """Return a line for each setting that is wrong, and one for those that are unknown."""
        checked = {name: value for name, value in required.items() if name not in self.trusted}
        lines = [
            f"{name} is {self.values[name]}: set `{name} {value}`"
            for name, value in checked.items()
            if self.values.get(name, value) != value
        ]
        if unknown := [name for name in checked if name not in self.values]:
            names = ", ".join(unknown)
            lines.append(f"Redis does not allow CONFIG GET, so {names} cannot be checked: {ADVICE}")
        return lines


def describe_trust(trust: str) -> str:
    """Return the state of the durability of a server that meets its tier, for a probe."""
    return f"trusted, not checked (BUSYAPI_REDIS_TRUST={trust})" if trust else "ok"


def read_settings(config: object, facts: dict[str, str], trust: str) -> SettingsReport:
    """Return the settings in the reply to CONFIG GET, and in INFO what that reply lacks."""
    texts = [text.decode() for text in config] if isinstance(config, list) else []
    reported = dict(zip(texts[::2], texts[1::2], strict=True))
    values: dict[str, str] = {}
    if "aof_enabled" in facts:
        values["appendonly"] = "yes" if facts["aof_enabled"] == "1" else "no"
    if "maxmemory_policy" in facts:
        values["maxmemory-policy"] = facts["maxmemory_policy"]
    return SettingsReport(values | reported, TRUSTED_SETTINGS[trust] - reported.keys())
