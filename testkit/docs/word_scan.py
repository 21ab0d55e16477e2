"""Where a file has a word that `words.py` lists.

Prose is everything in a file but code: in Markdown all but fences, indented blocks and code spans;
in Python comments, docstrings and strings with a blank in them; elsewhere the whole file. Old names
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


def _compiled(rules: Iterable[Rule], flags: re.RegexFlag, ends: str) -> list[re.Pattern[str]]:
    patterns = (rule.pattern.replace(" ", r"\s+") if ends else rule.pattern for rule in rules)
    return [re.compile(f"{ends}(?:{pattern}){ends}", flags) for pattern in patterns]


_PROSE = list(zip(PROSE, _compiled(PROSE, re.IGNORECASE, r"\b"), strict=True))
_NAMES = list(zip(NAMES, _compiled(NAMES, re.NOFLAG, ""), strict=True))
_CODE = re.compile(
    r"^( *)```.*?^ *```|^(?: {4}|\t)(?![-*]|\d+\.)\S.*?$|`[^`]*`", re.MULTILINE | re.DOTALL
)


def findings(path: str, text: str) -> list[str]:
    """Return the words that a file should not have, as `path:line: word (instead)`."""
    for allowed in ALLOWED.get(path, ()):
        text = text.replace(allowed, "x" * len(allowed))
    if path == "CHANGELOG.md":
        # Tables of old names and new ones.
        text = re.sub(r"^\|.*$", lambda row: _blank(row[0]), text, flags=re.MULTILINE)
    prose = prose_of(path, text)
    matches = [*_matches(_PROSE, prose), *_matches(_NAMES, text)]
    if path.endswith(".py"):
        matches += _identifiers(text)
    return [f"{path}:{line}: {word}" for line, word in sorted(set(matches))]


def _matches(rules: list[tuple[Rule, re.Pattern[str]]], text: str) -> Iterator[tuple[int, str]]:
    for rule, pattern in rules:
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield line, f"{' '.join(match[0].split())} ({rule.instead})"


def prose_of(path: str, text: str) -> str:
    """Return a file's text with all code blanked, so that lines stay where they are."""
    if path.endswith(".md"):
        return _CODE.sub(lambda match: _blank(match[0]), text)
    return _python_prose(text) if path.endswith(".py") else re.sub(r"[#*]|//|--", " ", text)


def _blank(text: str) -> str:
    return re.sub(r"\S", "_", text)


def _python_prose(text: str) -> str:
    """Keep comments, docstrings and strings with a blank."""
    prose = [list(_blank(line)) for line in text.splitlines(keepends=True)]
    for token in tokenize.generate_tokens(StringIO(text).readline):
        if token.type == tokenize.COMMENT or (
            token.type == tokenize.STRING and " " in token.string
        ):
            _keep(prose, token)
    return "".join("".join(line) for line in prose)


def _keep(prose: list[list[str]], token: tokenize.TokenInfo) -> None:
    (row, column), kept = token.start, token.string.replace("#", " ")
    for offset, line in enumerate(kept.splitlines(keepends=True)):
        start = column if offset == 0 else 0
        prose[row - 1 + offset][start : start + len(line)] = line


def _identifiers(source: str) -> Iterator[tuple[int, str]]:
    """Yield local variables and functions with a name that is no noun or no verb."""
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


def files() -> Iterator[str]:
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
    """List what is found below paths."""
    below = tuple(path.removeprefix("./") for path in paths)
    lines = [
        line
        for path in files()
        if path.startswith(below)
        for line in findings(path, (ROOT / path).read_text())
    ]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
