"""Generate docs/reference/logs.md from the definitions of log events."""

from pathlib import Path

from busyapi.telemetry.log_events import EVENTS

OWNED = ""
HEAD = """\
# Logs

One JSON object a line on stdout; on a terminal, readable lines instead. Lines hold no data from a
device except an `X-Request-ID`: no payload value, no patient id, and no text of a library or an
exception that could quote one. A request that succeeded, or was refused with a 4xx, has no line:
metrics count those.

| field | in | meaning |
|---|---|---|
| `time` | every line | when the line was written, RFC 3339 in UTC |
| `level` | every line | `debug`, `info`, `warning` or `error`, from `BUSYAPI_LOG_LEVEL` up |
| `event` | every line | a name from the table below |
| `role` | every line | `api` or `flusher` |
| `pod` | every line | the host name, which in Kubernetes is the pod's name |
| `partition` | lines of a flusher or a committer | the partition's number |
| `request_id` | errors of one request | the `X-Request-ID` of the answer |
| `reason` | some warnings and errors | the name of an error, one word: the same as in metrics |
| `detail`, `why` | some lines | a sentence, for a person |
| `repeated` | some warnings and errors | how many equal lines this line represents |

If a warning or an error repeats, equal in everything but time and request, the first one is written
at once and the others are counted. A line with `repeated` gives their number: at most once in ten
seconds, before the next line of any kind, or when the process ends. Only a killed process loses
these counts. A process tracks 256 kinds of lines.

Every answer has an `X-Request-ID`: the request's own, if it is 1 to 128 letters, digits and
`. _ : -`, or a generated one. It may be logged, so it must not contain personal data.

| event | level | fields | when | what to do |
|---|---|---|---|---|
"""


def render_page() -> str:
    """Return the page."""
    rows = []
    for event in sorted(EVENTS):
        fields = ", ".join(f"`{name}`" for name in event.fields + event.optional) or "none"
        rows.append(
            f"| `{event.name}` | {event.level} | {fields} | {event.when} | {event.action} |\n"
        )
    return HEAD + "".join(rows)


def render_files(_root: Path) -> dict[str, str]:
    """Return the page by its path."""
    return {"docs/reference/logs.md": render_page()}
