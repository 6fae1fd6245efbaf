"""The terminal: lines out, lines in, and nothing else that a terminal could lead to.

Every line that goes out is cleaned here, at the one place that writes, so that no view can forget it. A list that is longer than the
screen is shown a screen at a time by this module itself: no pager is started. Lines that come in are bounded; what is typed hidden is
not echoed and not remembered. Signals: Ctrl-C is KeyboardInterrupt, Ctrl-Z and Ctrl-\\ do nothing, and a connection that goes away
(SIGHUP, SIGTERM, a terminal that takes nothing any more) is :class:`HungUp`. Nobody typing for a while is :class:`Idle`.
"""

from __future__ import annotations

import os
import signal
import sys
import termios
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, NoReturn

os.environ["INPUTRC"] = os.devnull  # readline's own settings are no user's file
import readline

from tui.plain import LEAST_WIDTH, ascii_only, clean, width_of, wrapped

WIDTH: Final = 80
HEIGHT: Final = 24
MOST_WIDTH: Final = 160
MORE: Final = "-- Enter: more, q: enough -- "
MOST_HIDDEN: Final = 2048
"""Characters of a line that is read without readline; a password has 1,024 at most."""
HISTORY: Final = 200
"""Lines that are remembered, in memory."""


class HungUp(BaseException):
    """Nobody is at the terminal any more."""


class Idle(BaseException):
    """Nobody has typed for too long."""


class Closed(Exception):
    """Whoever types has said that this was all (Ctrl-D)."""


class Terminal:
    """A person at a terminal, or a program at a pipe."""

    def __init__(self, *, idle_s: float, ascii_: bool = False) -> None:
        self._idle_s = idle_s
        self._typed = sys.stdin.isatty() and sys.stdout.isatty()
        for stream in (sys.stdin, sys.stdout):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # typed as TextIO, and it is a TextIOWrapper
        self._ascii = ascii_ or "utf" not in (sys.stdout.encoding or "").lower()

    def begin(self, completions: Callable[[str], list[str]]) -> None:
        """Take over signals and readline. ``completions`` gives what a line could go on with."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for ignored in (signal.SIGTSTP, signal.SIGQUIT, signal.SIGTTIN, signal.SIGTTOU):
            signal.signal(ignored, signal.SIG_IGN)
        for ends in (signal.SIGHUP, signal.SIGTERM):
            signal.signal(ends, _hung_up)
        signal.signal(signal.SIGALRM, _idle)
        if self._typed:
            _complete(completions)

    def end(self) -> None:
        """From here on nothing interrupts, and nothing more is written where nobody is."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        for each in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGALRM):
            signal.signal(each, signal.SIG_IGN)

    # ------------------------------------------------------------------------------------------------------------ out

    @property
    def width(self) -> int:
        return min(max(self._size()[0], LEAST_WIDTH), MOST_WIDTH)

    def say(self, *lines: str) -> None:
        """Lines, each made clean and broken where it is too long. Raises HungUp where they go nowhere."""
        self._write("".join(f"{line}\n" for each in lines for line in self._lines(self._plain(each))))

    def _lines(self, text: str) -> list[str]:
        return [text] if width_of(text) <= self.width else wrapped(text, self.width)

    def show(self, lines: Iterable[str]) -> None:
        """Lines, a screen at a time. Raises HungUp, Idle, Closed."""
        page = max(self._size()[1] - 1, 5)
        for at, line in enumerate(lines, start=1):
            self.say(line)
            if self._typed and at % page == 0 and not self._goes_on():
                return

    def _goes_on(self) -> bool:
        return self.ask(MORE, remembered=False).strip().lower() not in ("q", "quit", "n", "no")

    def _plain(self, text: str) -> str:
        return ascii_only(clean(text)) if self._ascii else clean(text)

    def _write(self, text: str) -> None:
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except (OSError, ValueError) as error:
            raise HungUp from error

    def _size(self) -> tuple[int, int]:
        try:
            wide, high = os.get_terminal_size(sys.stdout.fileno())
        except OSError:
            return WIDTH, HEIGHT
        return wide or WIDTH, high or HEIGHT  # a serial line knows neither

    # ------------------------------------------------------------------------------------------------------------- in

    def ask(self, prompt: str, *, remembered: bool = True) -> str:
        """One line. Raises Closed, Idle, HungUp, KeyboardInterrupt."""
        readline.set_auto_history(remembered)
        with self.patience():
            return self._line(prompt)

    def ask_hidden(self, prompt: str) -> str:
        """One line that is neither shown nor remembered. Raises as :meth:`ask`."""
        if not self._typed:
            return self.ask(prompt)
        with self.patience(), _unechoed():
            return self._bounded(prompt)

    def agrees(self, question: str) -> bool:
        """Whether the answer is yes, in full: a noisy room, gloves, a line that drops letters."""
        return self.ask(f"{question} Type yes: ", remembered=False).strip().lower() == "yes"

    def _line(self, prompt: str) -> str:
        if self._typed:
            with _closed():
                return input(self._plain(prompt))
        return self._bounded(prompt)

    def _bounded(self, prompt: str) -> str:
        """A line without readline; what is beyond the bound is thrown away, and the rest shows that it was too long."""
        self._write(self._plain(prompt))
        with _closed():
            line = rest = sys.stdin.readline(MOST_HIDDEN)
            while rest and not rest.endswith("\n"):
                rest = sys.stdin.readline(MOST_HIDDEN)
        if not line:
            raise Closed
        return line.rstrip("\n")

    @contextmanager
    def patience(self) -> Iterator[None]:
        """Within it Idle is raised when too much time has gone by."""
        signal.setitimer(signal.ITIMER_REAL, self._idle_s)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def _closed() -> Iterator[None]:
    try:
        yield
    except EOFError:
        raise Closed from None
    except (OSError, termios.error) as error:  # a terminal that is gone
        raise HungUp from error


@contextmanager
def _unechoed() -> Iterator[None]:
    """Within it the terminal shows nothing of what is typed."""
    with _closed():
        before = termios.tcgetattr(sys.stdin)
        quiet = before[:]
        quiet[3] &= ~termios.ECHO
        try:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, quiet)
            yield
        finally:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
            sys.stdout.write("\n")


def _complete(completions: Callable[[str], list[str]]) -> None:
    """Readline with our words: no files of names, no history of others, none that is written."""
    readline.clear_history()
    readline.set_completer_delims(" ")
    readline.set_completer(_Completer(completions).state)
    readline.parse_and_bind("tab: complete")
    for binding in ("\\C-x\\C-r", "\\e&", "\\e~"):  # files and users of the machine
        readline.parse_and_bind(f'"{binding}": abort')
    readline.parse_and_bind(f"set history-size {HISTORY}")
    for line in ("set bell-style none", "set page-completions off", "set completion-query-items 200", "set enable-bracketed-paste off"):
        readline.parse_and_bind(line)


class _Completer:
    """What readline asks one by one."""

    def __init__(self, completions: Callable[[str], list[str]]) -> None:
        self._completions, self._found = completions, [""]

    def state(self, _text: str, number: int) -> str | None:
        if number == 0:
            self._found = self._completions(readline.get_line_buffer()[: readline.get_endidx()])
        return f"{self._found[number]} " if number < len(self._found) else None


def _hung_up(_number: int, _frame: FrameType | None) -> NoReturn:
    for each in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 0)
    raise HungUp


def _idle(_number: int, _frame: FrameType | None) -> NoReturn:
    raise Idle
