"""The parameters of a list of usages, and which usages they select."""

import re
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

import msgspec

from busyapi.api.page_cursor import parse_cursor
from busyapi.decode.usage_match import is_patient, patient_patterns
from busyapi.ids import Seq
from busyapi.usage_json import MAX_RECEIVED_MS, format_received_at
from busyapi.web.head import BAD_PERCENT
from busyapi.web.internal_headers import PATIENT_PLACE
from busyapi.web.problems import Problem

MAX_LIMIT, DEFAULT_LIMIT = 1000, 100
NAMES = ("patientId", "from", "to", "medication", "after", "limit")
_TIME = re.compile(
    r"\d{4}-\d\d-\d\d(?:T\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d))?", re.ASCII | re.IGNORECASE
)
_NUMBER = re.compile(r"[1-9]\d{0,3}", re.ASCII)
_NOT_ENCODED = "A parameter is not UTF-8 with percent-encoding."


class _Members(msgspec.Struct, gc=False, rename="camel"):
    patient_id: Any = None
    medication: Any = None


_decoder = msgspec.json.Decoder(_Members)


class UsageQuery(NamedTuple):
    """What a client asks for."""

    patient: str
    since_ms: int = 0
    until_ms: int | None = None
    medication: str | None = None
    after: tuple[Seq, ...] = ()
    """The last seq of each partition that the client has."""
    limit: int = DEFAULT_LIMIT

    def may_have(self, lines: bytes | bytearray) -> bool:
        """Return whether lines of the stream may have a usage of the patient."""
        return b"\\" in lines or any(text in lines for text in patient_patterns([self.patient]))

    def includes_time(self, received_ms: int) -> bool:
        """Return whether usages that were received at this time are selected."""
        too_late = self.until_ms is not None and received_ms >= self.until_ms
        return received_ms >= self.since_ms and not too_late

    def includes(self, line: bytes) -> bool:
        """Return whether a usage is selected, apart from its time."""
        try:
            members = _decoder.decode(line)
        except ValueError:  # a number beyond a double, which is neither of the two
            return False
        if self.medication is not None and (
            type(members.medication) is not str or members.medication != self.medication
        ):
            return False
        return is_patient(members.patient_id, [self.patient])

    def describe(self) -> str:
        """Return the query for the audit trail, without its patient."""
        conditions = [("from", format_received_at(self.since_ms))] if self.since_ms else []
        if self.until_ms is not None:
            conditions.append(("to", format_received_at(self.until_ms)))
        conditions.append(("patient", PATIENT_PLACE))
        if self.medication is not None:
            conditions.append(("medication", self.medication))
        # Braces of a medication are escaped: its text cannot be the place of the patient.
        named = [(name, value) for name, value in conditions if name != "patient"]
        place = f"patient={PATIENT_PLACE}"
        return "query?" + "&".join(filter(None, (place, urlencode(named, safe=":"))))


def parse_query(text: str, bound_patient: str | None) -> UsageQuery:
    """Parse the query string of a request. A credential may be bound to a patient.

    Raises:
        Problem: 422; it quotes no value. 403 for another patient than that of the credential.
    """
    values = _parse_names(text)
    patient = values.get("patientId", bound_patient or "")
    if not patient:
        raise _invalid("`patientId` is required.")
    if bound_patient is not None and patient != bound_patient:
        raise Problem(403, "This credential may read usages of one patient only.")
    since, until = (_parse_time(values, name) for name in ("from", "to"))
    if since is not None and until is not None and since >= until:
        raise _invalid("`from` must be earlier than `to`.")
    if values.get("medication") == "":
        raise _invalid("`medication` must not be empty.")
    limit = values.get("limit", str(DEFAULT_LIMIT))
    if not _NUMBER.fullmatch(limit) or int(limit) > MAX_LIMIT:
        raise _invalid(f"`limit` must be a whole number from 1 to {MAX_LIMIT}.")
    after = parse_cursor(values["after"]) if "after" in values else ()
    if after is None:
        raise _invalid("`after` must be the `next` of an earlier answer.")
    return UsageQuery(patient, since or 0, until, values.get("medication"), after, int(limit))


def _parse_names(text: str) -> dict[str, str]:
    if BAD_PERCENT.search(text):
        # `parse_qsl` would take it for text.
        raise _invalid(_NOT_ENCODED)
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=len(NAMES))
    except UnicodeDecodeError:
        raise _invalid(_NOT_ENCODED) from None
    except ValueError:
        raise _invalid(f"The parameters are at most {len(NAMES)}.") from None
    values = dict(pairs)
    if len(values) < len(pairs):
        raise _invalid("Each parameter may be sent once.")
    if not values.keys() <= set(NAMES):
        raise _invalid(f"The parameters are {', '.join(NAMES)}.")
    return values


def _parse_time(values: dict[str, str], name: str) -> int | None:
    if name not in values:
        return None
    try:
        moment = datetime.fromisoformat(values[name].upper())
        if _TIME.fullmatch(values[name]):
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return max(0, min(round(moment.timestamp() * 1000), MAX_RECEIVED_MS))
    except (ValueError, OverflowError):
        pass
    raise _invalid(f"`{name}` must be a time such as 2026-11-23T19:12:00Z, with + as %2B.")


def _invalid(detail: str) -> Problem:
    return Problem(422, detail)
