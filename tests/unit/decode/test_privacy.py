"""No refusal repeats what a device sent: not in its message, its errors or its causes."""

import gzip
import json
import traceback

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from busyapi.decode.body import read_batch, read_single
from busyapi.decode.incremental import run_to_completion
from busyapi.errors import InvalidRequest, InvalidUsage

TEXT = "Zq7Kx"
NUMBER = 918273645

types = st.sampled_from(
    ["", "application/json", "application/x-ndjson", "application/x-www-form-urlencoded"]
)
# Each value holds a marker, and most are invalid.
marked_values = st.one_of(
    st.text(max_size=300).map(lambda text: json.dumps(text[:150] + TEXT + text[150:])),
    st.sampled_from(
        [
            f'"{TEXT}',
            TEXT,
            f'"{TEXT}\\x"',
            f'"{TEXT}\\ud800"',
            f'"{TEXT}\n"',
            f'"Tue Feb 30 2016 09:11:51 GMT-0500 ({TEXT})"',
            f"{NUMBER}e999",
            f"{NUMBER}{'0' * 5000}",
            f"{NUMBER}.",
            f"{NUMBER}{'0' * 20}",
            f'[{NUMBER}, "{TEXT}"]',
            f'{{"a": {NUMBER}e999}}',
            "[" * 80 + f'"{TEXT}"' + "]" * 80,
        ]
    ),
)
members = st.dictionaries(
    st.sampled_from(["patientId", "timestamp", "medication", "other"]), marked_values, min_size=1
)
objects = members.map(lambda pairs: "{" + ",".join(f'"{k}":{v}' for k, v in pairs.items()) + "}")
forms = st.sampled_from(
    [f"patientId={TEXT}&patientId={TEXT}", TEXT, f"a={TEXT}%ff", f"timestamp={TEXT}", f"{TEXT}&b"]
)
bodies = st.one_of(
    objects,
    objects.map(lambda text: f"[{text},{text}]"),
    objects.map(lambda text: f"{text}\n{text}"),
    forms,
).map(str.encode)
broken = st.one_of(
    bodies,
    bodies.map(lambda body: body.replace(TEXT.encode(), TEXT.encode() + b"\xff", 1)),
    bodies.map(gzip.compress),
    bodies.map(lambda body: gzip.compress(body, 0)[:-6]),
)


def describe_all(error: BaseException) -> str:
    """Return all that a log or a response could print of an error and its causes."""
    texts = ["".join(traceback.format_exception(error))]
    errors: list[BaseException | None] = [error]
    for cause in errors:
        if cause is not None:
            texts += [repr(cause.args), repr(vars(cause)), str(cause)]
            texts += [repr(getattr(cause, name, "")) for name in ("doc", "object")]
            errors += [cause.__cause__, cause.__context__]
    return "\n".join(texts)


@given(broken, types, st.sampled_from(["", "gzip", TEXT]), st.booleans(), st.booleans())
def test_refusal_holds_no_value_from_the_body(
    body: bytes,
    kind: str,
    encoding: str,
    strict: bool,  # noqa: FBT001
    many: bool,  # noqa: FBT001
) -> None:
    try:
        if many:
            run_to_completion(
                read_batch(
                    body,
                    kind,
                    encoding,
                    strict=strict,
                    max_bytes=9000,
                    max_items=10,
                    max_item_bytes=9000,
                )
            )
        else:
            run_to_completion(read_single(body, kind, encoding, strict=strict, max_bytes=9000))
    except InvalidRequest as error:
        text = describe_all(error)
        assert TEXT not in text
        assert str(NUMBER) not in text
    else:
        assume(False)  # noqa: FBT003 - only refusals count


@pytest.mark.parametrize("body", [b'{"patientId":1,"patientId":[]}', b"{}", b'{"x":1e999}'])
def test_errors_still_name_their_place(body: bytes) -> None:
    with pytest.raises(InvalidUsage) as caught:
        run_to_completion(read_single(body, "", "", strict=True, max_bytes=9000))
    assert all(error.pointer.startswith("/") and error.detail for error in caught.value.errors)
