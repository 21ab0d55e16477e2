"""What a body is: which of JSON, NDJSON and form, and whether it is packed.

A body that starts as JSON is read as JSON whatever its Content-Type says, because a plain
`curl --data` calls everything a form. Parameters (charset) are passed over: JSON is UTF-8
(RFC 8259, section 8.1) and so are forms (WHATWG URL).
"""

from busyapi.decode.batch import decode_batch
from busyapi.decode.form import form_to_json
from busyapi.decode.inflate import inflate
from busyapi.decode.usage import decode_usage
from busyapi.errors import BodyTooLarge, UnsupportedMedia

_FORM = "application/x-www-form-urlencoded"
_NDJSON = "application/x-ndjson"
# What may stand before JSON: its own whitespace, and the bytes of a byte order mark.
_BEFORE_JSON = b" \t\r\n\xef\xbb\xbf"


def read_single(
    body: bytes, content_type: str, content_encoding: str, *, strict: bool, limit: int
) -> bytes:
    """Return the one usage of a request's body as its line.

    The headers are as received, "" if absent; `limit` holds for the body packed and inflated.

    Raises:
        BadUsage: one of its four kinds.
    """
    if content_encoding or len(body) > limit:
        body = _unpacked(body, content_encoding, limit)
    # The usual body says what it is by itself: no need to look at its type.
    if body[:1] == b"{":
        return decode_usage(body, strict=strict)
    media, first = _media(content_type), _first_byte(body)
    # No form starts with a bracket: a type that curl put on an array.
    if first == b"{" or _is_json(media) or (media == _FORM and first == b"["):
        return decode_usage(body, strict=strict)
    if media == _FORM:
        return decode_usage(form_to_json(body), strict=strict)
    raise UnsupportedMedia


def read_batch(
    body: bytes, content_type: str, content_encoding: str, *, strict: bool, limit: int, most: int
) -> list[bytes]:
    """Return the usages of a request's body as their lines.

    JSON and NDJSON are what they say they are. Of any other type, a body that starts with `[`
    is an array and one that starts with `{` is NDJSON.

    Raises:
        BadUsage: one of its four kinds.
    """
    if content_encoding or len(body) > limit:
        body = _unpacked(body, content_encoding, limit)
    media, first = _media(content_type), _first_byte(body)
    ndjson = media == _NDJSON or (first == b"{" and not _is_json(media))
    if not ndjson and first != b"[" and not _is_json(media):
        raise UnsupportedMedia
    return decode_batch(body, ndjson=ndjson, strict=strict, most=most)


def _unpacked(body: bytes, content_encoding: str, limit: int) -> bytes:
    if len(body) > limit:
        raise BodyTooLarge(f"The body is larger than {limit} bytes.")
    match content_encoding.strip().lower():
        case "" | "identity":
            return body
        case "gzip" | "x-gzip":  # RFC 9110, section 8.4.1.3: the same
            return inflate(body, limit)
    # A list of codings is unknown too: packing a usage twice gains nothing.
    raise UnsupportedMedia("The Content-Encoding must be gzip or absent.")


def _media(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _is_json(media: str) -> bool:
    return media.endswith(("/json", "+json"))


def _first_byte(body: bytes) -> bytes:
    return body.lstrip(_BEFORE_JSON)[:1]
