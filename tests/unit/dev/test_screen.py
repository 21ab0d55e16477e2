"""The output of `busyapi dev` on a terminal and elsewhere."""

import io

from busyapi.dev.screen import CLEAR, Screen
from testkit.terminal import Terminal


class Closed(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_on_a_terminal_a_line_goes_above_the_status_and_the_status_stays_one_line() -> None:
    terminal = Terminal()
    screen = Screen(terminal)
    screen.status("1 usage")
    screen.print_lines("api-0 died")
    screen.status("2 usages")
    screen.clear_status()
    expected = ["1 usage", "api-0 died\n1 usage", "2 usages", ""]
    assert terminal.getvalue() == "".join(CLEAR + text for text in expected)


def test_a_status_longer_than_the_terminal_is_cut() -> None:
    terminal = Terminal()
    Screen(terminal).status("x" * 1000)
    assert len(terminal.getvalue()) < 1000


def test_without_a_terminal_every_line_stays() -> None:
    out = io.StringIO()
    screen = Screen(out)
    screen.status("1 usage")
    screen.clear_status()
    screen.print_lines("done")
    assert out.getvalue() == "1 usage\ndone\n"


def test_a_closed_output_is_no_error() -> None:
    Screen(Closed()).print_lines("hello")
