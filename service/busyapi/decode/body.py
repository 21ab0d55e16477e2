"""The format of a body (JSON, NDJSON or form), and its Content-Encoding.

A body that starts like JSON is read as JSON, whatever its Content-Type says, because a plain
`curl --data` labels every body as a form. Parameters such as charset are ignored: JSON is UTF-8
(RFC 8259, section 8.1), and so are forms (WHATWG URL).
"""

from collections.abc import Mapping

from busyapi.decode.batch import BatchLimits, DecodedBatch, decode_batch
from busyapi.decode.form import read_form
from busyapi.decode.gzip import decompress
from busyapi.decode.incremental import Incremental
from busyapi.decode.limits import MAX_STEP_BYTES
from busyapi.decode.usage import read_usage
from busyapi.errors import BodyTooLarge, UnsupportedContentEncoding, UnsupportedMediaType

_FORM = "application/x-www-form-urlencoded"
_NDJSON = "application/x-ndjson"
_NO_ENCODING = ("", "identity")
_ENCODINGS = (*_NO_ENCODING, "gzip", "x-gzip")
"""The last two mean the same (RFC 9110, section 8.4.1.3)."""
# JSON may follow its own whitespace and the bytes of a byte order mark.
_BEFORE_JSON = b" \t\r\n\xef\xbb\xbf"


def read_single(
    body: bytes, content_type: str, content_encoding: str, *, strict: bool, max_bytes: int
) -> Incremental[bytes]:
    """Return the line of the one usage in a body; a long body takes several steps.

    The headers are as received, "" if absent. `max_bytes` limits the body both as sent and
    decompressed.

    Raises:
        InvalidRequest: MalformedBody, BodyTooLarge, UnsupportedMediaType,
            UnsupportedContentEncoding or InvalidUsage.
    """
    if content_encoding or len(body) > max_bytes:
        body = yield from _decompress(body, content_encoding, max_bytes)
    if len(body) > MAX_STEP_BYTES:
        yield
    # The usual body starts with a brace, so its type does not matter.
    if body[:1] != b"{":
        media, first = _media_type(content_type), _first_byte(body)
        # No form starts with a bracket: curl gave this type to an array.
        if not (first == b"{" or _is_json(media) or (media == _FORM and first == b"[")):
            if media != _FORM:
                raise UnsupportedMediaType
            line = yield from read_form(body, strict=strict)
            return line
    line = yield from read_usage(body, strict=strict)
    return line


def read_batch(
    body: bytes,
    content_type: str,
    content_encoding: str,
    *,
    strict: bool,
    max_bytes: int,
    max_items: int,
    max_item_bytes: int,
) -> Incremental[DecodedBatch]:
    """Return the lines of the usages in a body; a long body takes several steps.

    `max_bytes` limits the body both as sent and decompressed, `max_item_bytes` one usage.

    The Content-Types of JSON and NDJSON are trusted. With any other type, a body that starts with
    `[` is an array, and one that starts with `{` is NDJSON.

    Raises:
        InvalidRequest: MalformedBody, BodyTooLarge, UnsupportedMediaType,
            UnsupportedContentEncoding or InvalidUsage.
    """
    if content_encoding or len(body) > max_bytes:
        body = yield from _decompress(body, content_encoding, max_bytes)
    if len(body) > MAX_STEP_BYTES:
        yield
    media, first = _media_type(content_type), _first_byte(body)
    ndjson = media == _NDJSON or (first == b"{" and not _is_json(media))
    if not ndjson and first != b"[" and not _is_json(media):
        raise UnsupportedMediaType
    limits = BatchLimits(max_items, max_item_bytes)
    batch = yield from decode_batch(body, ndjson=ndjson, strict=strict, limits=limits)
    return batch


def check_content_encoding(content_encoding: str) -> None:
    """Refuse a body by its Content-Encoding, before the body arrives.

    Raises:
        UnsupportedContentEncoding: the encoding is unknown.
    """
    if content_encoding and content_encoding.strip().lower() not in _ENCODINGS:
        raise UnsupportedContentEncoding


def check_single_type(headers: Mapping[str, str], start: bytes) -> None:
    """Refuse a usage by its type and its first bytes, before the rest arrives.

    Raises:
        UnsupportedMediaType: the body is not a usage, whatever follows.
    """
    if start[:1] != b"{":
        _check_type(headers, start, b"{", (_FORM,))


def check_batch_type(headers: Mapping[str, str], start: bytes) -> None:
    """Refuse a batch as `check_single_type` refuses a usage."""
    if start[:1] != b"[":
        _check_type(headers, start, b"[{", (_NDJSON,))


def _check_type(
    headers: Mapping[str, str], start: bytes, brackets: bytes, others: tuple[str, ...]
) -> None:
    first, media = _first_byte(start), _media_type(headers.get("content-type", ""))
    compressed = headers.get("content-encoding", "").strip().lower() not in _NO_ENCODING
    if first and first not in brackets and not (compressed or _is_json(media) or media in others):
        raise UnsupportedMediaType


def _decompress(body: bytes, content_encoding: str, max_bytes: int) -> Incremental[bytes]:
    if len(body) > max_bytes:
        raise BodyTooLarge(f"The body is larger than {max_bytes} bytes.")
    match content_encoding.strip().lower():
        case "" | "identity":
            return body
        case "gzip" | "x-gzip":
            inflated = yield from decompress(body, max_bytes)
            return inflated
    # A list of encodings is refused too: compressing a usage twice gains nothing.
    raise UnsupportedContentEncoding


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _is_json(media: str) -> bool:
    return media.endswith(("/json", "+json"))


def _first_byte(body: bytes) -> bytes:
    return body.lstrip(_BEFORE_JSON)[:1]
