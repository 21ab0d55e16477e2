"""The OpenAPI document and the decoder agree about what a usage is.

A JSON Schema validator judges the value of a body, as a client would before it sends it.
"""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import busyapi.api
from busyapi.decode.form import NUMBER, read_form
from busyapi.decode.incremental import run_to_completion
from busyapi.decode.limits import LONG_BYTES
from busyapi.decode.timestamp import FORMS
from busyapi.decode.usage import decode_usage
from busyapi.errors import InvalidUsage
from testkit.json_samples import NotReadable, objects, parse_reference, values

DOCUMENT = json.loads(
    (Path(busyapi.api.__file__).with_name("openapi.json")).read_text(encoding="utf-8")
)
SCHEMAS = DOCUMENT["components"]["schemas"]
USAGE = {"patientId": "100", "timestamp": 1478009511000, "medication": "Albuterol"}


def make_validator(name: str) -> Any:
    """Return a validator of one schema of the document."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    return jsonschema.Draft202012Validator(schema)


IS_FORM = make_validator("UsageForm").is_valid
IS_USAGE = make_validator("Usage").is_valid


def is_accepted(raw: bytes) -> bool:
    """Return whether strict validation accepts a JSON object."""
    try:
        decode_usage(raw, strict=True)
    except InvalidUsage:
        return False
    return True


def encode(member: str, text: str) -> bytes:
    """Return a usage with a member of this JSON text."""
    others = json.dumps({name: value for name, value in USAGE.items() if name != member})
    return f'{others[:-1]},"{member}":{text}}}'.encode()


NUMBERS = (
    *("0", "-0", "1", "1.0", "1e0", "1.5", "-0.0", "1e2", "12e-1", "120e-1", "1E+15", "1e16"),
    *("1478009511000", "1478009511000.0", "1.478009511e12", "1478009511000.5", "1478009511"),
    *("9007199254740990", "9007199254740991", "9007199254740992", "-9007199254740991.0"),
    *("8640000000000000", "8640000000000001", "-8640000000000000", "-8640000000000001", "864e13"),
    *("1e300", "1e-300", "123456789012345678901234567890"),
)
TEXTS = (
    *("", "m", "x" * 128, "x" * 129, "x" * 256, "x" * 257, "\u00e9" * 128, "\U0001f600" * 256),
    *("\n", " ", "\u0000"),
)
OTHERS = ("null", "true", "false", "[]", "{}", "[1]")


@pytest.mark.parametrize("member", USAGE)
@pytest.mark.parametrize("text", [*NUMBERS, *map(json.dumps, TEXTS), *OTHERS])
def test_a_member_is_accepted_exactly_if_the_schema_accepts_it(member: str, text: str) -> None:
    raw = encode(member, text)
    assert is_accepted(raw) is IS_USAGE(json.loads(raw))


def test_each_member_is_required() -> None:
    for member in USAGE:
        usage = {name: value for name, value in USAGE.items() if name != member}
        assert not is_accepted(json.dumps(usage).encode())
        assert not IS_USAGE(usage)


_form = st.sampled_from(FORMS).flatmap(lambda form: st.from_regex(form, fullmatch=True))
_character = st.sampled_from("0123456789 :-+.,TZtzGMT()[]!=/\n\r\x00\u0660aA")


@st.composite
def _altered(draw: st.DrawFn) -> str:
    """A timestamp in text with one change."""
    text = draw(_form)
    at = draw(st.integers(0, len(text)))
    return text[:at] + draw(_character) + text[at + draw(st.integers(0, 2)) :]


@given(_form)
def test_each_text_that_the_schema_describes_is_accepted(text: str) -> None:
    assert IS_USAGE(USAGE | {"timestamp": text})
    assert is_accepted(encode("timestamp", json.dumps(text)))


@given(_altered())
@settings(max_examples=500)
def test_any_text_is_accepted_exactly_if_the_schema_accepts_it(text: str) -> None:
    assert is_accepted(encode("timestamp", json.dumps(text))) is IS_USAGE(
        USAGE | {"timestamp": text}
    )


@pytest.mark.parametrize(
    "number",
    [*NUMBERS, "1e308", "1e309", "-1e400", "1e-400", "9" * 308, "9" * 309, "-1" + "0" * 309],
)
@pytest.mark.parametrize("around", ["%s", "[[%s]]", '{"a":{"b":[0,%s]}}'])
def test_a_number_of_a_free_member_is_accepted_exactly_if_the_schema_accepts_it(
    number: str, around: str
) -> None:
    raw = encode("other", around % number)
    assert is_accepted(raw) is IS_USAGE(json.loads(raw))


@pytest.mark.parametrize("year", [0, 4, 100, 1900, 1904, 2000, 2016, 2100, 9996, 9999])
def test_schema_and_decoder_have_the_same_calendar(year: int) -> None:
    names = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
    for month in range(14):
        for day in range(33):
            name = names[(month - 1) % 12]
            for text in (
                f"{year:04}-{month:02}-{day:02}T09:11:51Z",
                f"Tue {name} {day} {year:04} 09:11:51 GMT-0500",
                f"Tue, {day:02} {name} {year:04} 09:11:51 GMT",
            ):
                usage = USAGE | {"timestamp": text}
                assert is_accepted(json.dumps(usage).encode()) is IS_USAGE(usage)


_texts = st.one_of(values, st.sampled_from(NUMBERS), _altered().map(json.dumps))


@given(patient=_texts, time=_texts, medication=_texts, other=objects)
@settings(max_examples=500)
def test_any_usage_is_accepted_exactly_if_the_schema_accepts_it(
    patient: str, time: str, medication: str, other: str
) -> None:
    members = {"patientId": patient, "timestamp": time, "medication": medication, "other": other}
    defaults = {name: json.dumps(value) for name, value in USAGE.items()} | {"other": "1"}
    for changed in (list(members), *([name] for name in members)):
        texts = defaults | {name: members[name] for name in changed}
        raw = ("{" + ",".join(f'"{name}":{text}' for name, text in texts.items()) + "}").encode()
        try:
            usage = parse_reference(raw)
        except NotReadable:
            continue
        # A schema has no limits on the digits of a number in a long usage, and validators round.
        if b"\\u" not in raw.lower() and len(raw) <= LONG_BYTES and is_exact_patient(raw):
            assert is_accepted(raw) is IS_USAGE(usage)


def is_exact_patient(raw: bytes) -> bool:
    """Return whether a whole double as the patient is what was sent."""
    number = json.loads(raw, parse_float=Decimal, parse_int=str)["patientId"]
    return not isinstance(number, Decimal) or (
        not float(number).is_integer() or number == float(number)
    )


_field_texts = st.one_of(
    _form,
    _altered(),
    st.from_regex(NUMBER, fullmatch=True),
    st.from_regex("-?[0-9]{0,17}", fullmatch=True),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
)


@given(_field_texts, _field_texts, _field_texts)
@settings(max_examples=300)
def test_any_form_is_accepted_exactly_if_the_schema_accepts_it(
    patient: str, time: str, medication: str
) -> None:
    form = {"patientId": patient, "timestamp": time, "medication": medication, "other": "x"}
    try:
        run_to_completion(read_form(urlencode(form).encode(), strict=True))
        accepted = True
    except InvalidUsage:
        accepted = False
    assert accepted is IS_FORM(form)


def test_the_document_has_the_patterns_of_the_decoder() -> None:
    patterns = [form["pattern"] for form in SCHEMAS["TimestampText"]["anyOf"]]
    assert patterns == [f"^(?:{form})$" for form in FORMS]
    digits = SCHEMAS["UsageForm"]["properties"]["timestamp"]["anyOf"][1]["pattern"]
    assert digits == f"^(?:{NUMBER})$"
    # Other engines than Python's know these constructs too: no lookaround, no possessive repeat.
    for form in FORMS:
        assert not any(
            mark in form for mark in ("(?=", "(?!", "(?<", "(?>", "++", "*+", "}+", "\\d")
        )
