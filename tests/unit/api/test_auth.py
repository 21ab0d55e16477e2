"""The token file: what it may say, and how it is told what it may not."""

from pathlib import Path

import pytest

from busyapi.api.auth import make_authorizer
from busyapi.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "says"),
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
def test_a_bad_token_file_is_refused_without_a_word_of_the_tokens(
    tmp_path: Path, text: str | None, says: str
) -> None:
    path = tmp_path / "tokens"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"^BUSYAPI_TOKENS_FILE") as error:
        make_authorizer(str(path), 0)
    assert says in str(error.value)
    assert "secret" not in str(error.value)


def test_comments_and_blank_lines_are_passed_over_and_a_token_may_hold_a_hash(
    tmp_path: Path,
) -> None:
    path = tmp_path / "tokens"
    path.write_text("#write one\n\n  # two\nread three#four # five\r\nwrite,read six\n")
    found = make_authorizer(str(path), 0)
    assert found
    assert sorted(map(sorted, (found._rights or {}).values())) == [["read"], ["read", "write"]]
    assert "three#four" not in repr(vars(found)), "only digests are kept"


def test_without_tokens_and_without_a_rate_there_is_no_guard() -> None:
    assert make_authorizer("", 0) is None
