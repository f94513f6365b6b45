"""What verbs print: one JSON document with `--json`, else tables, aligned in a terminal and tab-separated in a pipe."""

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any, Final

import typer

from tunesmith.cli.client import asked_for_json

_GAP: Final = "  "


def _note(asked: bool) -> bool:
    asked_for_json.set(asked)
    return asked


#: Every verb's `--json`. With it stdout holds one JSON document, the API's own object, and nothing else.
AsJson = Annotated[
    bool, typer.Option("--json", is_eager=True, callback=_note, help="Print the API's own answer, one JSON document.")
]


def print_json(document: Any) -> None:
    """Print a document as JSON: on one line in a pipe, indented in a terminal."""
    typer.echo(json.dumps(document, indent=2 if sys.stdout.isatty() else None))


def whole_list(data: Sequence[Any]) -> dict[str, Any]:
    """Return the API's list object of all that was read over its pages."""
    return {"object": "list", "data": list(data), "has_more": False}


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, shorten: int = -1) -> None:
    """Print rows: tab-separated without headings in a pipe; aligned in a terminal, where column `shorten` gives way."""
    plain = [[clean(str(cell)) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in plain:
            typer.echo("\t".join(row))
        return
    for number, line in enumerate(aligned([list(headings), *plain], shutil.get_terminal_size().columns, shorten=shorten)):
        typer.echo(typer.style(line, bold=True) if number == 0 else line)


def pairs(rows: Iterable[tuple[str, object]]) -> None:
    """Print names and values: tab-separated in a pipe, the values under each other in a terminal."""
    plain = [(name, clean(str(value))) for name, value in rows]
    margin = max(len(name) for name, _ in plain) if sys.stdout.isatty() else 0
    for name, value in plain:
        typer.echo(f"{typer.style(f'{name:<{margin}}', bold=True)}  {value}" if margin else f"{name}\t{value}")


def aligned(rows: Sequence[Sequence[str]], columns: int, *, shorten: int = -1) -> list[str]:
    """Return rows as lines whose cells stand under each other; one column gives way where a line has no room for all."""
    from rich.cells import cell_len, chop_cells

    widths = [max(map(cell_len, cells)) for cells in zip(*rows, strict=True)]
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - columns
    room = max(8, widths[shorten] - max(0, excess))
    widths[shorten] = min(widths[shorten], room)
    lines: list[str] = []
    for row in rows:
        cells = list(row)
        if cell_len(cells[shorten]) > widths[shorten]:
            cells[shorten] = chop_cells(cells[shorten], widths[shorten] - 1)[0] + "…"
        padded = [cell + " " * (width - cell_len(cell)) for cell, width in zip(cells, widths, strict=True)]
        lines.append(_GAP.join(padded).rstrip())
    return lines


def clean(text: str) -> str:
    """Return a text without what moves a terminal's cursor or breaks a line."""
    return "".join(character if character.isprintable() else " " for character in text)


def when(at: int | None) -> str:
    """Return a time of the API as the clock on this wall shows it; `-` where there is none yet."""
    return "-" if at is None else datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M")


def tell(line: str) -> None:
    """Tell of progress, on stderr, where it is in nobody's way."""
    typer.echo(line, err=True)


def duration(seconds: float) -> str:
    """Return a time as a person says it."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
