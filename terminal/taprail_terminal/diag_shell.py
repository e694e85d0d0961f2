"""Giving commands to a terminal: one, or one after the other at a prompt.

Answers for progress while an answer is awaited, for the questions that only eyes and ears can
settle, and for going on after a command that failed. What was typed is kept for this run only: an
address may hold a password.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from taprail_common.errors import TapRailError
from taprail_terminal import diag_files, diag_live, diag_show
from taprail_terminal.console.answers import EXIT_NOT_OK
from taprail_terminal.console.commands import COMMANDS
from taprail_terminal.diag_talk import Talk, is_change, plain_words, time_of

_LEAVE: Final = frozenset({"exit", "quit", "bye"})


class Shell:
    """One technician at one terminal. Answers go to `out`, what happens meanwhile to `aside`."""

    def __init__(
        self,
        talk: Talk,
        out: Console,
        aside: Console,
        *,
        as_json: bool = False,
        within_s: float | None = None,
    ) -> None:
        self._talk = talk
        self._out = out
        self._aside = aside
        self._as_json = as_json
        self._within_s = within_s
        self._waits = False

    def give(self, words: Sequence[str]) -> int:
        """Give one command and show its answer; the exit code. Raises TapRailError. A line that is
        lost is waited for within the command's time; at the prompt until it is back."""
        sent, wanted = diag_files.outgoing(words)
        sent = plain_words(sent)
        if sent == ["live"] and self._out.is_terminal and not self._as_json:
            diag_live.watch(self._talk, self._out)
            return 0
        with self._progress(sent):
            limit_s = self._within_s or (None if self._waits else time_of(sent))
            answer = self._talk.ask(sent, limit_s)
        if self._as_json:
            diag_show.print_json(answer)
            return diag_show.exit_code(answer)
        diag_show.show(answer, self._out)
        if (stored := diag_files.incoming(answer, wanted)) is not None:
            self._out.print(f"stored in {stored}", markup=False)
        asked = diag_show.question(answer)
        if asked and self._out.is_terminal and not diag_show.ask_person(self._out, asked):
            return EXIT_NOT_OK
        return diag_show.exit_code(answer)

    def run(self) -> int:
        """A prompt until Ctrl-D; a command that fails ends nothing. Raises TapRailError when nobody
        is there at all."""
        with self._progress(["version"]):
            name = self._talk.meet()
        self._out.print(
            f"[green]●[/] terminal [bold]{name}[/] at {escape(str(self._talk.place))};"
            " [dim]help lists what it can, Ctrl-D leaves[/]"
        )
        self._waits = True
        with _readline():
            while (text := self._typed(name)) is not None:
                if text.strip().lower() in _LEAVE:
                    break
                self._try(text)
        return 0

    def _typed(self, name: str) -> str | None:
        """What was typed; empty for a line that was given up, None at the end."""
        try:
            return input(f"{name}> ")
        except EOFError:
            self._out.print()
            return None
        except KeyboardInterrupt:
            self._out.print()
            return ""

    def _try(self, text: str) -> None:
        try:
            words = shlex.split(text)
            if words:
                self.give(words)
        except ValueError as exc:
            self._aside.print(str(exc).lower(), style="red", markup=False)
        except TapRailError as exc:
            self._aside.print(f"error: {exc}", style="red", markup=False)
        except KeyboardInterrupt:
            self._talk.close()  # its answer must not be taken for the next one's
            self._aside.print("given up", style="yellow")

    @contextmanager
    def _progress(self, words: Sequence[str]) -> Iterator[None]:
        """What is awaited and for how long already; nothing where nobody looks."""
        if not self._aside.is_terminal or self._as_json:
            yield
            return
        shown = " ".join(words[:2])[:40] + (", signed" if is_change(words) else "")
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=self._aside, transient=True) as progress:
            limit_s = time_of(words)
            task = progress.add_task(f"{shown} (at most {limit_s:.0f} s)", total=None)
            yield
            progress.remove_task(task)


@contextmanager
def _readline() -> Iterator[None]:
    """Line editing, history and completion of command names, where Python was built with them."""
    with suppress(ImportError):
        import readline

        readline.set_completer(_Completer())
        readline.set_completer_delims("")  # a name may have two words
        readline.parse_and_bind("tab: complete")
    yield


class _Completer:
    """Names that begin as what was typed, as readline asks for them, one after the other."""

    def __call__(self, text: str, state: int) -> str | None:
        found = completions(text)
        return found[state] if state < len(found) else None


def completions(text: str) -> list[str]:
    """Names of commands that begin so."""
    typed = text.lstrip().lower()
    return [name for name in sorted([*COMMANDS, *_LEAVE]) if name.startswith(typed)]


def is_interactive() -> bool:
    """Whether a person sits here."""
    return sys.stdin.isatty() and sys.stdout.isatty()
