"""`busyapi token create`: the printed token works with the printed entry."""

import re
from hashlib import sha256

import pytest

from busyapi.auth.token_file import parse_token_file
from busyapi.cli import main


def create(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    """Return the token and the entry."""
    assert main(["token", "create", *arguments]) == 0
    match = re.fullmatch(
        r"token, shown only now:\n(busyapi_[\w-]{43})\n\nentry for the file:\n(.*)",
        capsys.readouterr().out,
        re.DOTALL,
    )
    assert match
    return match[1], match[2]


def test_the_entry_has_every_option_and_only_the_digest(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--expires", "2027-01-01", "--tenant", 'no"rth', "--rate", "2.5")
    scopes = ("--scopes", "write, read:own")
    token, entry = create(capsys, "clinic.7", *scopes, *options, "--patient-id", "\u00e9")
    assert token not in entry
    credential = parse_token_file(entry.encode()).tokens[sha256(token.encode()).digest()]
    assert credential.name == "clinic.7"
    assert credential.scopes == {"write", "read:own"}
    assert credential.tenant == 'no"rth'
    assert credential.rate == 2.5
    assert credential.patient_id == "\u00e9"


def test_two_entries_fit_into_one_file(capsys: pytest.CaptureFixture[str]) -> None:
    (one, first), (two, second) = (
        create(capsys, name, "--scopes", "write") for name in ("one", "two")
    )
    assert one != two
    assert len(parse_token_file(f"{first}\n{second}".encode()).tokens) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("a b", "--scopes", "write"),
        ("a", "--scopes", "all"),
        ("a", "--scopes", ""),
        ("a", "--scopes", "write", "--expires", "tomorrow"),
        ("a", "--scopes", "write", "--rate", "-1"),
        ("a", "--scopes", "write", "--tenant", ""),
    ],
)
def test_an_option_that_the_file_cannot_have_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert main(["token", "create", *arguments]) == 2
    assert capsys.readouterr().err.startswith("busyapi: BUSYAPI_TOKENS_FILE")
