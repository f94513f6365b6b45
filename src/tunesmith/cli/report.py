"""What is shown of files and dry runs in a terminal: figures, lengths, errors at their lines, advice."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tunesmith.cli.output import duration
from tunesmith.core.machine import readable_bytes

_BAR: Final = 30
_N_ERRORS: Final = 20
_NAMES: Final = {"training_file": "training file", "validation_file": "validation file"}


def console() -> Console:
    """Return the console that reports are written to."""
    return Console(highlight=False, soft_wrap=True)


def show_preflight(screen: Console, told: Mapping[str, Any]) -> None:
    """Show the object `tunesmith.preflight`, errors last, where they are seen."""
    kind = told["method"]["type"]
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("model", escape(told["model"]) + ("" if told["model"] == told["base"] else f" on {escape(told['base'])}"))
    knobs = told["method"][kind]["hyperparameters"]
    table.add_row("method", f"{kind}: " + ", ".join(f"{name} {value}" for name, value in knobs.items()))
    if told["total_steps"] is not None:
        table.add_row("steps", f"{told['total_steps']:,} ({told['steps_per_epoch']:,} an epoch)")
    if told["trained_tokens"] is not None:
        table.add_row("trained tokens", f"{told['trained_tokens']:,}")
    estimate = told["estimate"]
    if estimate is not None:
        span = f"{duration(estimate['seconds_low'])} to {duration(estimate['seconds_high'])}"
        n_jobs = estimate["jobs"]
        why = f"by {n_jobs} earlier job{'s' * (n_jobs != 1)}" if estimate["source"] == "jobs" else "by a rule"
        table.add_row("time", f"about {duration(estimate['seconds'])} ({span}; {why})")
        machine = readable_bytes(estimate["machine_memory_bytes"])
        table.add_row("memory", f"about {readable_bytes(estimate['memory_bytes'])} of {machine} ({estimate['device']})")
    if told["cost"] is not None:
        table.add_row("cost", cost(told["cost"]))
    screen.print(table)
    for param, name in _NAMES.items():
        if told[param] is not None:
            show_file(screen, f"{name} {told[param]['id']}", told[param])
    if told["grader"] is not None:
        _show_grades(screen, told["grader"]["samples"])
    show_notes(screen, told["warnings"])
    show_errors(screen, told["errors"], told["n_errors"])
    if told["error"] is not None and not told["errors"]:
        screen.print(f"[bold red]{escape(told['error']['message'])}[/bold red]")
    if told["valid"]:
        screen.print("[bold green]A job of this would pass its validation.[/bold green]")


def show_file(screen: Console, name: str, told: Mapping[str, Any]) -> None:
    """Show the figures of a file and how long its rows are."""
    share = told["trainable_tokens"] / told["tokens"] if told["tokens"] else 0
    about = "" if told.get("complete", True) else "about "
    screen.print(
        f"\n[bold]{escape(name)}[/bold]: {about}{told['examples']:,} examples, {about}{told['tokens']:,} tokens, of which "
        f"{told['trainable_tokens']:,} are trained ({share:.0%})"
    )
    most = max((bar["examples"] for bar in told["lengths"]), default=0)
    for bar in told["lengths"]:
        blocks = "█" * max(1, round(_BAR * bar["examples"] / most))
        screen.print(f"  up to {bar['up_to']:>7,} tokens  {blocks:<{_BAR}}  {bar['examples']:,}")


def show_errors(screen: Console, errors: Sequence[Mapping[str, Any]], n_errors: int) -> None:
    """Show what is wrong, each at its line."""
    if not n_errors:
        return
    screen.print(f"\n[bold red]{n_errors:,} error{'s' * (n_errors != 1)}[/bold red]")
    for error in errors[:_N_ERRORS]:
        where = f"{_NAMES[error['param']]} " if "param" in error else ""
        field = f" {error['field']}" if error["field"] else ""
        message = error["message"].removeprefix(begin := f"Line {error['line']} ")
        gap = " " if error["message"].startswith(begin) else ": "
        screen.print(f"  {where}line {error['line']}{escape(field)}{gap}{escape(message)}")
    if n_errors > _N_ERRORS:
        screen.print(f"  and {n_errors - min(_N_ERRORS, len(errors)):,} more")


def show_notes(screen: Console, notes: Sequence[str]) -> None:
    """Show advice."""
    for text in notes:
        screen.print(f"[yellow]note[/yellow] {escape(text)}")


def cost(told: Mapping[str, Any]) -> str:
    """Return a cost in words."""
    rate = f"{told['per_million_tokens']:g} {told['currency']} a million"
    return f"{told['amount']:.2f} {told['currency']} ({told['trained_tokens']:,} trained tokens at {rate})"


def _show_grades(screen: Console, samples: Sequence[Mapping[str, Any]]) -> None:
    table = Table("line", "answer", "", "reward", "errors", title="the grader on five rows", title_justify="left")
    for sample in samples:
        reward = "not in time" if sample["reward"] is None else f"{sample['reward']:g}"
        said = sample["model_sample"]
        errors = "; ".join(f"{flag}: {details}" for flag, details in sample["errors"].items())
        table.add_row(str(sample["line"]), sample["column"] or sample["sample"], escape(said[:40]), reward, escape(errors))
    screen.print()
    screen.print(table)
