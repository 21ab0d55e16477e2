"""Find the words that `words.py` lists.

Prose is everything in a file except code: in Markdown all except fences, indented blocks and code
spans; in Python comments, docstrings and strings with a space; elsewhere the whole file. Old names
are searched in code too.

`python -m testkit.docs.word_scan PATH…` lists all matches below paths, pending or not.
"""

import ast
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator
from io import StringIO
from pathlib import Path, PurePosixPath

from testkit.docs.words import (
    ALLOWED,
    FIRST_WORDS,
    FUNCTIONS,
    NAMES,
    PENDING,
    PROSE,
    SKIPPED,
    VARIABLES,
    Rule,
)

ROOT = Path(__file__).parents[2]


def _compile(rules: Iterable[Rule], flags: re.RegexFlag, ends: str) -> list[re.Pattern[str]]:
    patterns = (rule.pattern.replace(" ", r"\s+") if ends else rule.pattern for rule in rules)
    return [re.compile(f"{ends}(?:{pattern}){ends}", flags) for pattern in patterns]


_PROSE = list(zip(PROSE, _compile(PROSE, re.IGNORECASE, r"\b"), strict=True))
_NAMES = list(zip(NAMES, _compile(NAMES, re.NOFLAG, ""), strict=True))
_CODE = re.compile(
    r"^( *)```.*?^ *```|^(?: {4}|\t)(?![-*]|\d+\.)\S.*?$|`[^`]*`", re.MULTILINE | re.DOTALL
)


def find_words(path: str, text: str) -> list[str]:
    """Return the words that a file should not have, as `path:line: word (instead)`."""
    for allowed in ALLOWED.get(path, ()):
        text = text.replace(allowed, "x" * len(allowed))
    if path == "CHANGELOG.md":
        # Tables of old names and new ones.
        text = re.sub(r"^\|.*$", lambda row: _blank(row[0]), text, flags=re.MULTILINE)
    prose = extract_prose(path, text)
    matches = [*_find_matches(_PROSE, prose), *_find_matches(_NAMES, text)]
    if path.endswith(".py"):
        matches += _check_identifiers(text)
    return [f"{path}:{line}: {word}" for line, word in sorted(set(matches))]


def _find_matches(
    rules: list[tuple[Rule, re.Pattern[str]]], text: str
) -> Iterator[tuple[int, str]]:
    for rule, pattern in rules:
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield line, f"{' '.join(match[0].split())} ({rule.instead})"


def extract_prose(path: str, text: str) -> str:
    """Return a file's text with all code blanked, so that line numbers stay the same."""
    if path.endswith(".md"):
        return _CODE.sub(lambda match: _blank(match[0]), text)
    return _extract_python_prose(text) if path.endswith(".py") else re.sub(r"[#*]|//|--", " ", text)


def _blank(text: str) -> str:
    return re.sub(r"\S", "_", text)


def _extract_python_prose(text: str) -> str:
    """Keep comments, docstrings and strings with a space."""
    prose = [list(_blank(line)) for line in text.splitlines(keepends=True)]
    for token in tokenize.generate_tokens(StringIO(text).readline):
        if token.type == tokenize.COMMENT or (
            token.type == tokenize.STRING and " " in token.string
        ):
            _keep(prose, token)
    return "".join("".join(line) for line in prose)


def _keep(prose: list[list[str]], token: tokenize.TokenInfo) -> None:
    (row, column), text = token.start, token.string.replace("#", " ")
    for offset, line in enumerate(text.splitlines(keepends=True)):
        start = column if offset == 0 else 0
        prose[row - 1 + offset][start : start + len(line)] = line


def _check_identifiers(source: str) -> Iterator[tuple[int, str]]:
    """Yield local variables that are not nouns, and functions that are not verbs."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) if name in VARIABLES:
                yield node.lineno, f"{name} (a noun)"
            case ast.arg(arg=name) if name in VARIABLES:
                yield node.lineno, f"{name} (a noun)"
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if name in FUNCTIONS:
                    yield node.lineno, f"{name}() (a verb with an object)"
                first = (ast.get_docstring(node) or " ").split(maxsplit=1)[:1]
                if first and first[0] in FIRST_WORDS:
                    yield node.lineno, f"{name}: docstring begins with {first[0]} (Return …)"


def list_files() -> Iterator[str]:
    """Yield the text files of the repository."""
    listed = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True, timeout=20)
    for path in listed.splitlines():
        if (ROOT / path).exists() and not any(PurePosixPath(path).match(one) for one in SKIPPED):
            yield path


def is_pending(path: str) -> bool:
    """Return whether a file is not rewritten yet."""
    folders = tuple(entry for entry in PENDING if entry.endswith("/"))
    return path.startswith(folders) or any(PurePosixPath(path).match(entry) for entry in PENDING)


def main(paths: list[str]) -> int:
    """List the findings below paths."""
    below = tuple(path.removeprefix("./") for path in paths)
    lines = [
        line
        for path in list_files()
        if path.startswith(below)
        for line in find_words(path, (ROOT / path).read_text())
    ]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
