"""No file has a refused word, except files on the pending list."""

import pytest

from testkit.docs.word_scan import ROOT, find_words, is_pending, list_files
from testkit.docs.words import ALLOWED, NAMES, PROSE, Rule


def test_no_file_has_a_refused_word() -> None:
    bad = [
        line
        for path in list_files()
        if not is_pending(path)
        for line in find_words(path, (ROOT / path).read_text())
    ]
    assert bad == []


def test_every_allowed_text_is_in_its_file() -> None:
    for path, texts in ALLOWED.items():
        for text in texts:
            assert text in (ROOT / path).read_text(), f"{path} no longer has {text!r}"


FORMS = {
    "a.md": "# A\n\nA text, {}.\n",
    "b.md": "- a list with\n  {}\n",
    "comment.py": "x = 1  # {}\n",
    "docstring.py": 'def f() -> None:\n    """Do so: {}."""\n',
    "message.py": 'raise ValueError(f"{{x}}: {}")\n',
    "long.py": 'x = """\nA page:\n{}\n"""\n',
    "a.yaml": "a: 1 # {}\nb: |\n  text\n",
    "b.yaml": 'summary: "{}"\n',
    "a.lua": "-- {}\nreturn 1\n",
    "a.tpl": "{{{{- /* {} */}}}}\n",
    "a.json": '{{"description": "{}"}}\n',
    "Makefile": "a:  ## {}\n",
}


@pytest.mark.parametrize("path", FORMS)
@pytest.mark.parametrize("rule", PROSE, ids=lambda rule: rule.example)
def test_word_is_found_in_every_kind_of_file(path: str, rule: Rule) -> None:
    text = FORMS[path].format(rule.example)
    assert [line for line in find_words(path, text) if rule.instead in line]


@pytest.mark.parametrize("rule", NAMES, ids=lambda rule: rule.example)
def test_old_name_is_found_in_code(rule: Rule) -> None:
    assert find_words("a.py", f"from a import {rule.example}\n")
    assert find_words("a.md", f"`{rule.example}`\n")


def test_words_are_found_over_the_end_of_a_line() -> None:
    assert find_words("a.py", "# it goes\n# on\nx = 1\n") == ["a.py:1: goes on (continue)"]
    assert find_words("a.py", "x = 1  # it goes\n# on\n") == ["a.py:1: goes on (continue)"]
    assert find_words("a.py", "goes = 1\non = 1\n") == []


def test_table_of_the_changelog_may_have_old_names() -> None:
    row = "| `fast_lane_off` | `fast_path_disabled` |\n"
    assert find_words("CHANGELOG.md", row) == []
    assert find_words("README.md", row)
    assert find_words("CHANGELOG.md", f"`fast_lane_off` {row}")


@pytest.mark.parametrize(
    "text",
    [
        "Batches in flight, an in-flight batch, a stand-alone server that stands for another.",
        "The client waits beside the server. Another document, wholesale, a planet.",
        "```\nthe lane goes on\n```\n\n    kubectl stands\n\nA `lane` in code.\n",
    ],
)
def test_other_words_are_not_found(text: str) -> None:
    assert find_words("a.md", text) == []


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("for each in ():\n    pass\n", "each"),
        ("said = 1\n", "said"),
        ("def f(wanted: int) -> None: ...\n", "wanted"),
        ("def told() -> None: ...\n", "told()"),
        ('def f() -> int:\n    """Give one."""\n', "docstring begins with Give"),
    ],
)
def test_name_that_is_no_noun_or_verb_is_found(source: str, name: str) -> None:
    (line,) = find_words("a.py", source)
    assert name in line


def test_code_and_short_strings_are_no_prose() -> None:
    assert find_words("a.py", 'key = f"{{{p}}}:lane"\nlane = stand\n') == []
