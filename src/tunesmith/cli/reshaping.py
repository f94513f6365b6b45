"""What `tunesmith files split` and `convert` do: they stream, write whole files or none, and overwrite nothing."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

import typer

from tunesmith.cli.client import REFUSED, fail
from tunesmith.cli.local import MAX_LINE_BYTES, made, opened
from tunesmith.cli.output import print_json
from tunesmith.data.arrays import elements, is_array
from tunesmith.data.converting import FORMATS, NotConvertible, format_of, left_out
from tunesmith.data.jsonl import NotJson, parse_object, read_lines
from tunesmith.data.splitting import key_of, rank, rows, threshold

#: Rows that are told of one by one, as text and as JSON.
_N_SHOWN: Final = 20
_N_KEPT: Final = 1000


def split(file: Path, train: Path, valid: Path, *, fraction: float, seed: int, as_json: bool) -> None:
    """Write the two parts of a file, each row as it stands there."""
    if not 0 < fraction < 1:
        fail(f"--validation-fraction {fraction:g} leaves nothing on one side: it is between 0 and 1, such as 0.1.", 2)
    if train.absolute() == valid.absolute():
        fail(f"--training and --validation both name {train}: the parts are two files.", 2)
    try:
        with opened(file, "Splitting") as stream:
            edge, n_train, n_valid = threshold(stream, fraction=fraction, seed=seed, max_line_bytes=MAX_LINE_BYTES)
            stream.seek(0)
            with made(train) as training, made(valid) as validation:
                for line, row in rows(stream, max_line_bytes=MAX_LINE_BYTES):
                    part = validation if rank(key_of(row), seed) < edge else training
                    part.write(bytes(line.content or b"") + b"\n")
    except NotJson as error:
        fail(f"{file}: {error}.")
    except ValueError as error:
        fail(f"{file} cannot be split: {error}.")
    if as_json:
        parts = [("training", train, n_train), ("validation", valid, n_valid)]
        print_json({name: {"file": str(path), "examples": n} for name, path, n in parts})
    else:
        typer.echo(f"{train}: {n_train:,} examples\n{valid}: {n_valid:,} examples")


def convert(file: Path, output: Path, wanted: str | None, *, as_json: bool) -> int:
    """Write the chats of a file; return the exit code."""
    kind, n_written, n_refused = wanted, 0, 0
    refused: list[dict[str, Any]] = []
    lost: Counter[str] = Counter()
    to_stdout = str(output) == "-"
    with (
        opened(file, "Converting", arrays=True) as stream,
        nullcontext(sys.stdout.buffer) if to_stdout else made(output) as out,
    ):
        try:
            for line, row in _rows(stream):
                kind = kind or _told(file, line, row)
                try:
                    out.write(_chat(row, kind))
                    n_written += 1
                    lost.update(left_out(row, kind))
                except NotConvertible as error:
                    n_refused += 1
                    if len(refused) < _N_KEPT:
                        refused.append({"line": line, "message": str(error)})
        except NotJson as error:
            fail(f"{file}: {error}.")
        if not n_written:
            first = f": line {refused[0]['line']} {refused[0]['message']}" if refused else ""
            fail(f"{file} has no row that can be converted{first}.")
    if as_json:
        told = {"file": str(output), "from": kind, "examples": n_written, "left_out": dict(lost)}
        print_json({**told, "n_errors": n_refused, "errors": refused})
        return REFUSED if n_refused else 0
    typer.echo(f"{output}: {n_written:,} examples from {kind}", err=to_stdout)
    if lost:
        columns = ", ".join(f"{name} ({n:,} rows)" for name, n in lost.most_common())
        typer.echo(f"Columns that chat has no place for were left out: {columns}.", err=True)
    for error in refused[:_N_SHOWN]:
        typer.echo(f"line {error['line']}: {error['message']}", err=True)
    if n_refused:
        typer.echo(f"tunesmith: {n_refused:,} rows were left out.", err=True)
    return REFUSED if n_refused else 0


def _rows(stream: Any) -> Iterator[tuple[int, Any]]:
    """Yield rows with the numbers of their lines, or of their elements; a line that is none is its error."""
    start = stream.read(4096)
    stream.seek(0)
    if is_array(start):
        for number, value in elements(stream, max_bytes=MAX_LINE_BYTES):
            yield number, value if isinstance(value, dict) else NotJson("is no object")
        return
    for line in read_lines(stream, max_line_bytes=MAX_LINE_BYTES):
        try:
            yield line.number, parse_object(line, max_line_bytes=MAX_LINE_BYTES)
        except NotJson as error:
            yield line.number, error


def _told(file: Path, line: int, row: Any) -> str | None:
    """Return the format that a row tells, None for one that cannot be read."""
    if isinstance(row, NotJson):
        return None
    kind = "chat" if "messages" in row else format_of(row)
    if kind is None:
        known = ", ".join(sorted(row)[:10])
        fail(f"{file}: line {line} has {known or 'no keys'}, which is no format known here: --from says which it is.", 2)
    return kind


def _chat(row: Any, kind: str | None) -> bytes:
    """Return the line of a row's chat.

    Raises:
        NotConvertible: it has none.
    """
    if isinstance(row, NotJson):
        raise NotConvertible(str(row))
    chat = row if kind in ("chat", None) else FORMATS[str(kind)](row)
    if "messages" not in chat:
        raise NotConvertible("'messages' is missing")
    return json.dumps(chat, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
