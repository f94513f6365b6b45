"""A conversation at the command line: what is typed, what the models answer, and how both are shown."""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import typer

from tunesmith.cli.answers import Answer, Message, Told, ask

#: What moves a terminal's cursor, rings or recolours: a model's text is not let through with it.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_FRAMES_PER_S: Final = 10
HELP: Final = """/reset         forget the conversation
/model NAME    go on with another model (with --compare: NAME and NAME2)
/system TEXT   set the system message; without TEXT there is none
/exit          leave, as Ctrl-D does
Ctrl-C stops an answer; what has come of it stays in the conversation. A text that begins with / is written with //."""


def plain(text: str) -> str:
    """Return a text without what a terminal would obey."""
    return _CONTROL.sub("", text)


class Talk:
    """One conversation with a model, or one with each of two that are asked the same."""

    def __init__(self, root: str, models: Sequence[str], system: str | None, options: Mapping[str, Any]) -> None:
        self._root = root
        self.models = list(models)
        self.system = system
        self._options = options
        self.turns: list[list[Message]] = [[] for _ in models]

    def say(self, text: str) -> int:
        """Ask, show the answers as they come, and return the exit code; of one that failed nothing is kept."""
        answers = [Answer(model) for model in self.models]
        start: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        asked = [[*start, *turns, {"role": "user", "content": text}] for turns in self.turns]
        try:
            show = _beside if len(answers) > 1 else _alone
            show(answers, lambda told: ask(self._root, answers, asked, self._options, told))
        finally:
            for answer, turns in zip(answers, self.turns, strict=True):
                if answer.error is None and answer.text:
                    turns += [{"role": "user", "content": text}, {"role": "assistant", "content": answer.text}]
        for answer in answers:
            who = f"{answer.model}: " if len(answers) > 1 else ""
            if answer.error is not None:
                typer.echo(f"tunesmith: {who}{plain(answer.error)}", err=True)
            elif answer.reason == "length":
                typer.echo(f"tunesmith: {who}the answer ended at its limit of tokens.", err=True)
        return max(answer.code for answer in answers)

    def go_on(self) -> None:
        """Talk until the user leaves."""
        import readline  # noqa: F401  # pyright: ignore[reportUnusedImport] - arrow keys and earlier lines, for input()

        typer.echo(f"Talking with {' and '.join(self.models)}. /help tells what else can be typed; Ctrl-D leaves.")
        while True:
            try:
                text = input("> ").strip()
            except EOFError:
                typer.echo()
                return
            except KeyboardInterrupt:
                typer.echo("\nCtrl-D or /exit leaves.")
                continue
            if text == "/exit":
                return
            if text.startswith("/") and not text.startswith("//"):
                typer.echo(self.obey(text))
            elif text:
                try:
                    self.say(text.removeprefix("/") if text.startswith("//") else text)
                except KeyboardInterrupt:
                    typer.echo("\n(stopped)")

    def obey(self, line: str) -> str:
        """Do what a line with a slash says, and return what to tell of it."""
        verb, _, rest = line.partition(" ")
        rest = rest.strip()
        if verb == "/help":
            return HELP
        if verb == "/reset":
            self.turns = [[] for _ in self.models]
            return "The conversation is forgotten."
        if verb == "/system":
            self.system = rest or None
            return "The system message is set." if rest else "There is no system message."
        if verb == "/model" and len(names := rest.split()) == len(self.models):
            self.models = names
            return f"Going on with {' and '.join(names)}."
        if verb == "/model":
            return f"/model takes {len(self.models)} name{'s' * (len(self.models) > 1)}; now: {' '.join(self.models)}."
        return f"There is no {plain(verb)}: /help tells what there is."


def _alone(_: Sequence[Answer], ask_all: Callable[[Told], None]) -> None:
    """Show one answer as it comes; thoughts are dim, and only a terminal is told them."""
    terminal = sys.stdout.isatty()
    last, thinking = "", False

    def told(_: Answer, text: str, thoughts: str) -> None:
        nonlocal last, thinking
        if thoughts and terminal:
            typer.echo(typer.style(plain(thoughts), dim=True), nl=False)
            last, thinking = thoughts, True
        if text:
            said = ("\n\n" if thinking else "") + (plain(text) if terminal else text)
            typer.echo(said, nl=False)
            last, thinking = text, False
        sys.stdout.flush()

    ask_all(told)
    if last and not last.endswith("\n"):
        typer.echo()


def _silent(answer: Answer, text: str, thoughts: str) -> None:
    """Take what is shown otherwise."""


def _beside(answers: Sequence[Answer], ask_all: Callable[[Told], None]) -> None:
    """Show answers in columns as they come; anywhere but in a terminal one below the other, once all are whole."""
    if not sys.stdout.isatty():
        ask_all(_silent)
        for answer in answers:
            if answer.text:
                typer.echo(f"{answer.model}:\n{answer.text}\n")
        return
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    def columns() -> Table:
        table = Table(box=None, expand=True, padding=(0, 2, 0, 0))
        for answer in answers:
            table.add_column(Text(answer.model, style="bold"), ratio=1, overflow="fold")
        table.add_row(*(Text(plain(answer.text)) for answer in answers))
        return table

    with Live(console=Console(highlight=False), get_renderable=columns, refresh_per_second=_FRAMES_PER_S):
        ask_all(_silent)
