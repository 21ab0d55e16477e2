"""The token file: its syntax, and the errors about it."""

from pathlib import Path

import pytest

from busyapi.api.auth import make_authorizer
from busyapi.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("write good-secret\n\nadmin other-secret\n", "line 3: "),
        ("write good-secret\nother-secret\n", "line 2: "),
        ("write good-secret other-secret\n", "line 1: "),
        ("write, good-secret\n", "line 1: "),
        (", good-secret\n", "line 1: "),
        ("WRITE good-secret\n", "line 1: "),
        ("# nothing\n", "no token"),
        ("", "no token"),
        ("write good-secret\n\xff", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_an_error_about_a_token_file_quotes_no_token(
    tmp_path: Path, text: str | None, message: str
) -> None:
    path = tmp_path / "tokens"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"^BUSYAPI_TOKENS_FILE") as error:
        make_authorizer(str(path), 0)
    assert message in str(error.value)
    assert "secret" not in str(error.value)


def test_comments_and_blank_lines_are_skipped_and_a_token_may_hold_a_hash(
    tmp_path: Path,
) -> None:
    path = tmp_path / "tokens"
    path.write_text("#write one\n\n  # two\nread three#four # five\r\nwrite,read six\n")
    authorizer = make_authorizer(str(path), 0)
    assert authorizer
    assert sorted(map(sorted, (authorizer._rights or {}).values())) == [["read"], ["read", "write"]]
    assert "three#four" not in repr(vars(authorizer)), "only digests are kept"


def test_without_tokens_and_without_a_rate_there_is_no_authorizer() -> None:
    assert make_authorizer("", 0) is None
