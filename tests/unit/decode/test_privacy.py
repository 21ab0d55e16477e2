"""No refusal repeats what a device sent: not in its message, its faults, or what hangs on it."""

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
# Each holds a marker, and most are wrong somewhere.
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
objects = members.map(lambda some: "{" + ",".join(f'"{k}":{v}' for k, v in some.items()) + "}")
forms = st.sampled_from(
    [f"patientId={TEXT}&patientId={TEXT}", TEXT, f"a={TEXT}%ff", f"timestamp={TEXT}", f"a={TEXT}&b"]
)
bodies = st.one_of(
    objects,
    objects.map(lambda one: f"[{one},{one}]"),
    objects.map(lambda one: f"{one}\n{one}"),
    forms,
).map(str.encode)
broken = st.one_of(
    bodies,
    bodies.map(lambda body: body.replace(TEXT.encode(), TEXT.encode() + b"\xff", 1)),
    bodies.map(gzip.compress),
    bodies.map(lambda body: gzip.compress(body, 0)[:-6]),
)


def said(error: BaseException) -> str:
    """Collect whatever a log or an answer could print of an error and of what hangs on it."""
    everything = ["".join(traceback.format_exception(error))]
    seen: list[BaseException | None] = [error]
    for each in seen:
        if each is not None:
            everything += [repr(each.args), repr(vars(each)), str(each)]
            everything += [repr(getattr(each, name, "")) for name in ("doc", "object")]
            seen += [each.__cause__, each.__context__]
    return "\n".join(everything)


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
        text = said(error)
        assert TEXT not in text
        assert str(NUMBER) not in text
    else:
        assume(False)  # noqa: FBT003 - only refusals count


@pytest.mark.parametrize("body", [b'{"patientId":1,"patientId":[]}', b"{}", b'{"x":1e999}'])
def test_faults_are_named_all_the_same(body: bytes) -> None:
    with pytest.raises(InvalidUsage) as caught:
        run_to_completion(read_single(body, "", "", strict=True, max_bytes=9000))
    assert all(fault.pointer.startswith("/") and fault.detail for fault in caught.value.errors)
