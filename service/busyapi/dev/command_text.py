"""Texts of paths and commands that an operator can type as they are printed."""

import re
import shlex
import shutil
import sys
from pathlib import Path

# Not the end of a longer path: that one is complete already.
_ARCHIVE_COMMAND = re.compile(r"(?<![\w./-])busyapi archive ([a-z-]+)")


def format_path(path: Path) -> str:
    """Return a path relative to the working directory, quoted for a shell."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def format_program() -> str:
    """Return the command that starts this program: its name if PATH has it, otherwise its path."""
    program = Path(sys.argv[0])
    if program.name != "busyapi":
        return f"{format_path(Path(sys.executable))} -m busyapi"
    installed = shutil.which("busyapi")
    if installed and Path(installed).absolute() == program.absolute():
        return "busyapi"
    return format_path(program.absolute())


def format_this_command(*option: str) -> str:
    """Return this process's command line, with another value for an option if one is given."""
    words = iter(sys.argv[1:])
    others = []
    for word in words:
        name, separator, _ = word.partition("=")
        # argparse accepts the beginning of a name too.
        if option and len(name) > len("--") and option[0].startswith(name):
            if not separator:
                next(words, None)
        else:
            others.append(word)
    return " ".join([format_program(), shlex.join([*others, *option])])


def complete_commands(text: str, archive: Path) -> str:
    """Name program and archive in each `busyapi archive …` of a message.

    A flusher knows neither: in a container the message's command works as it is.
    """
    folder = format_path(archive)

    def complete(command: re.Match[str]) -> str:
        return f"{format_program()} archive {command[1]} --dir {folder}"

    return _ARCHIVE_COMMAND.sub(complete, text)
