"""What `tunesmith files check` does: reads files as a job's validation would, by the base's tokenizer, on this machine."""

import importlib.resources
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from tunesmith.cli.client import REFUSED, Client, fail, segment
from tunesmith.cli.local import MAX_LINE_BYTES, opened
from tunesmith.cli.output import print_json
from tunesmith.cli.report import console, cost, show_errors, show_file, show_notes
from tunesmith.core.settings import Settings
from tunesmith.data.folder import BrokenFolder, read_folder
from tunesmith.data.jsonl import NotJson, parse_object, read_lines
from tunesmith.data.lengths import Context
from tunesmith.data.oddities import Oddities
from tunesmith.data.render import Renderer
from tunesmith.data.rows import N_MIN_EXAMPLES, InvalidRows, Problems, method_of
from tunesmith.data.survey import Survey
from tunesmith.data.tally import Tally, overlap
from tunesmith.methods import auto

EMBEDDED: Final = "tunesmith-nano"
N_WORST: Final = 10
N_ERRORS: Final = 1000


@dataclass(slots=True)
class _Read:
    """What a file holds."""

    tally: Tally
    problems: Problems
    oddities: Oddities
    #: What is wrong with it as a whole.
    fault: str | None = None


def check(
    file: Path,
    validation: Path | None,
    *,
    method: str | None,
    base: str,
    epochs: int | None,
    price: float | None,
    as_json: bool,
    base_url: str,
) -> int:
    """Read the files, tell what was found, and return the exit code."""
    method = method or _method(file)
    folder = _folder(base, base_url)
    try:
        renderer, n_context = Renderer.load(folder), read_folder(folder).context_length
    except BrokenFolder as error:
        fail(f"--base {base}: {error}", 2)
    context = Context(n_context, base, {})
    survey = Survey(method, {}, renderer, context, max_line_bytes=MAX_LINE_BYTES)
    train = _read(file, survey, n_min=N_MIN_EXAMPLES)
    valid = None if validation is None else _read(validation, survey, n_min=1)
    told = _told(file, train, "training", method, epochs)
    told["base"], told["method"] = base, method
    told["validation"] = (
        None if valid is None or validation is None else _told(validation, valid, "validation", method, None)
    )
    told["cost"] = _cost(told["trained_tokens"], price)
    if valid is not None:
        told["warnings"] += overlap(train.tally, valid.tally)
    worst = train.oddities.worst(N_WORST, train.problems, train.tally.duplicates(), _known(train.tally, valid))
    told["worst"] = [asdict(oddity) for oddity in worst]
    told["valid"] = not any(each["error"] or each["n_errors"] for each in (told, told["validation"]) if each)
    if as_json:
        print_json(told)
    else:
        _show(told)
    return 0 if told["valid"] else REFUSED


def _read(file: Path, survey: Survey, *, n_min: int) -> _Read:
    read = _Read(Tally(), Problems(n_shown=N_ERRORS), Oddities(survey.context))
    with opened(file, "Checking") as stream:
        try:
            for seen in survey.read(stream, read.problems):
                read.tally.add(seen.row, seen.measures, survey.context)
                read.tally.mark(seen.row, seen.drafts)
                read.oddities.add(seen)
        except InvalidRows as error:
            read.fault = str(error).strip()
    if read.fault is None and not read.problems and read.tally.n_examples < n_min:
        read.fault = f"It has {read.tally.n_examples} example(s), but must have at least {n_min} examples."
    return read


def _told(file: Path, read: _Read, kind: str, method: str, epochs: int | None) -> dict[str, Any]:
    tally = read.tally
    told = {
        "file": str(file),
        "error": read.fault,
        "n_errors": read.problems.n_total,
        "errors": read.problems.told(),
        **tally.told(),
        "warnings": [*tally.warnings(kind, read.oddities.context), *tally.advice(kind)],
    }
    if kind == "training":
        knobs = auto.resolve(method, {"n_epochs": epochs}, tally.n_examples) if tally.n_examples else {}
        told["n_epochs"] = knobs.get("n_epochs")
        known = bool(knobs) and method != "reinforcement"
        told["trained_tokens"] = tally.tokens * knobs["n_epochs"] if known else None
    return told


def _known(train: Tally, valid: _Read | None) -> dict[int, int]:
    """Return the training file's lines that are in the validation file, with their lines there."""
    if valid is None:
        return {}
    there = dict(zip(valid.tally.marks, valid.tally.lines, strict=True))
    return {line: there[mark] for mark, line in zip(train.marks, train.lines, strict=True) if mark in there}


def _cost(n_tokens: int | None, price: float | None) -> dict[str, Any] | None:
    settings = Settings()
    price = settings.training_price if price is None else price
    if price is None or n_tokens is None:
        return None
    told = {"amount": n_tokens * price / 1e6, "currency": settings.training_currency, "per_million_tokens": price}
    return {**told, "trained_tokens": n_tokens}


def _method(file: Path) -> str:
    """Return what the first row that is one seems to be for."""
    with opened(file) as stream:
        for line in read_lines(stream, max_line_bytes=MAX_LINE_BYTES):
            try:
                return method_of(parse_object(line, max_line_bytes=MAX_LINE_BYTES)) or "supervised"
            except NotJson:
                continue
    return "supervised"


def _folder(base: str, base_url: str) -> Path:
    """Return the folder of a base: one that is named, the embedded one, or a server's on this machine."""
    if base == EMBEDDED:
        return Path(str(importlib.resources.files("tunesmith"))) / "bases" / EMBEDDED
    if Path(base).is_dir():
        return Path(base)
    with Client(base_url) as client:
        told = client.call("GET", f"/tunesmith/v1/models/{segment(base)}")
    path = told.get("path")
    if not path or not Path(path).is_dir():
        fail(
            f"The folder of {base} is not on this machine: name a copy with --base FOLDER, or let the server look: "
            "`tunesmith preflight`.",
            2,
        )
    return Path(path)


def _show(told: dict[str, Any]) -> None:
    screen = console()
    for each in (told, told["validation"]):
        if each is not None:
            show_file(screen, each["file"], each)
            show_errors(screen, each["errors"], each["n_errors"])
            if each["error"]:
                screen.print(f"{each['file']}: {each['error']}", style="bold red", markup=False)
    if told["worst"]:
        screen.print(f"\n[bold]worst rows ({len(told['worst'])})[/bold]")
        for oddity in told["worst"]:
            screen.print(f"  line {oddity['line']}: {'; '.join(oddity['reasons'])}", markup=False)
    screen.print()
    notes: Iterable[str] = [*told["warnings"], *((told["validation"] or {}).get("warnings") or [])]
    show_notes(screen, list(notes))
    if told["trained_tokens"] is not None:
        screen.print(f"{told['trained_tokens']:,} trained tokens in {told['n_epochs']} epochs")
    if told["cost"] is not None:
        screen.print(f"cost: {cost(told['cost'])}")
    if told["valid"]:
        screen.print("[bold green]Every row can be used.[/bold green]")
