"""What the demonstration shows: colours and a bar in a terminal, plain lines anywhere else."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table


class Bar(Protocol):
    """Something that shows how far a job is."""

    def at(self, step: int, total: int, figure: str) -> None:
        """Show an optimizer step with a figure of it."""
        ...


class _LiveBar:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("training", total=None, figure="")

    def at(self, step: int, total: int, figure: str) -> None:
        self._progress.update(self._task, completed=step, total=total, figure=figure)


class _Lines:
    """One line for every tenth of the way."""

    def __init__(self, screen: "Screen") -> None:
        self._screen = screen
        self._told = -1

    def at(self, step: int, total: int, figure: str) -> None:
        tenth = 10 * step // max(total, 1)
        if tenth > self._told:
            self._told = tenth
            self._screen.line(f"step {step}/{total}  {figure}")


class Screen:
    """Writes to standard output."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console if console is not None else Console(highlight=False, soft_wrap=True)
        self._n_chapters = 0

    def chapter(self, title: str) -> None:
        """Begin a numbered part."""
        self._n_chapters += 1
        self._console.print(f"\n[bold]{self._n_chapters}. {escape(title)}[/bold]")

    def line(self, text: str) -> None:
        """Write one line of a part."""
        self._console.print(f"   {escape(text)}")

    def verdict(self, text: str, *, good: bool) -> None:
        """Write a line that matters."""
        self._console.print(f"   [bold {'green' if good else 'red'}]{escape(text)}[/]")

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Write a table whose columns are as wide as what is in them."""
        if self._console.is_terminal:
            table = Table(*headings, box=None, header_style="bold", padding=(0, 2, 0, 1), pad_edge=True)
            for row in rows:
                table.add_row(*(escape(cell) for cell in row))
            self._console.print(table)
            return
        widths = [max(len(cells[column]) for cells in (headings, *rows)) for column in range(len(headings))]
        for cells in (headings, *rows):
            self.line("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())

    @contextmanager
    def bar(self) -> Generator[Bar]:
        """Show a job's steps for as long as the context lasts."""
        if not self._console.is_terminal:
            yield _Lines(self)
            return
        columns = (
            TextColumn("   {task.description}"),
            BarColumn(bar_width=40),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figure]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console) as progress:
            yield _LiveBar(progress)
