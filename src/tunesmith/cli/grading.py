"""What `tunesmith graders run` does: takes or samples an answer for each row of a file, has it graded, and adds up."""

import shutil
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

import typer

from tunesmith.cli.client import USAGE, Client, Refused, Unreachable, fail
from tunesmith.cli.local import MAX_LINE_BYTES, opened
from tunesmith.cli.output import table
from tunesmith.cli.progress import counting
from tunesmith.data.jsonl import NotJson, parse_object, read_lines
from tunesmith.data.prompts import RESERVED
from tunesmith.graders.base import GradingFailed, Sample
from tunesmith.graders.template import TemplateRefused, parse, render

PATH: Final = "/v1/fine_tuning/alpha/graders"
CHAT: Final = "/v1/chat/completions"
#: A server that is busy is asked again so often, after pauses that double.
N_TRIES: Final = 4
PAUSE_S: Final = 1.0
BUSY: Final = frozenset({429, 502, 503, 504})

Row = dict[str, Any]


class NoAnswer(Exception):
    """A row has none to be graded; the message says why, and goes on from `line 3 `."""


@dataclass(slots=True)
class Graded:
    """What came of a row."""

    line: int
    answer: str | None = None
    reward: float | None = None
    scores: dict[str, Any] = field(default_factory=dict[str, Any])
    errors: dict[str, str] = field(default_factory=dict[str, str])

    def told(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "line": self.line, "model_sample": self.answer, "reward": self.reward, "scores": self.scores,
            "errors": self.errors,
        }  # fmt: skip


class Bench:
    """One grader, and where answers come from: the rows, or a model."""

    def __init__(
        self, client: Client, grader: dict[str, Any], *, sample: str | None, model: str | None, max_tokens: int | None
    ) -> None:
        self._client = client
        self._sample = None if sample is None else template_of(sample)
        self._model = model
        self._options = {} if max_tokens is None else {"max_completion_tokens": max_tokens}
        self._grader: dict[str, Any] = client.call("POST", f"{PATH}/validate", {"grader": grader})["grader"]

    def run(self, file: Path, *, limit: int | None, n_at_once: int) -> dict[str, Any]:
        """Grade the rows of a file in their order, so many at once, and return what came of each and of all."""
        n_rows = _n_rows(file, limit)
        done: list[Graded] = []
        waiting: deque[Future[Graded]] = deque()
        with counting("Grading", n_rows) as tell, ThreadPoolExecutor(n_at_once) as pool:
            try:
                for line, row in islice(_rows(file), limit):
                    if not done and not waiting:
                        self._check_source(file, line, row)
                    waiting.append(pool.submit(self._grade, line, row))
                    if len(waiting) >= 2 * n_at_once:
                        done.append(waiting.popleft().result())
                        tell(len(done))
                while waiting:
                    done.append(waiting.popleft().result())
                    tell(len(done))
            except Refused as error:
                fail(str(error), error=error.error)
            except Unreachable as error:
                fail(str(error), error.code)
            finally:
                for future in waiting:
                    future.cancel()
        graded = [each.reward for each in done if each.reward is not None]
        n_errors = sum(bool(each.errors) for each in done)
        return {
            "file": str(file),
            "grader": {"name": self._grader["name"], "type": self._grader["type"]},
            "model": self._model,
            "n_rows": len(done),
            "mean_reward": sum(graded) / len(graded) if graded else None,
            "n_errors": n_errors,
            "error_rate": n_errors / len(done) if done else None,
            "rows": [each.told() for each in done],
        }

    def _check_source(self, file: Path, line: int, row: Row | NotJson) -> None:
        """End the command where the first row tells that nobody said where answers come from."""
        if self._sample is None and self._model is None and not isinstance(row, NotJson):
            try:
                answer_of(row, None)
            except NoAnswer as error:
                fail(f"{file}: line {line} {error}.", USAGE)

    def _grade(self, line: int, row: Row | NotJson) -> Graded:
        graded = Graded(line)
        try:
            if isinstance(row, NotJson):
                raise NoAnswer(str(row))
            graded.answer = self._sampled(row) if self._model is not None else answer_of(row, self._sample)
            told = self._ask(f"{PATH}/run", {"grader": self._grader, "model_sample": graded.answer, "item": item_of(row)})
        except NoAnswer as error:
            graded.errors["no_answer"] = str(error)
            return graded
        flags = told["metadata"]["errors"]
        graded.reward, graded.scores = told["reward"], told["metadata"]["scores"]
        graded.errors = {flag: str(flags.get(f"{flag}_details") or "") for flag, is_set in flags.items() if is_set is True}
        return graded

    def _sampled(self, row: Row) -> str:
        messages: Any = row.get("messages")
        if not isinstance(messages, list) or not messages:
            raise NoAnswer("has no messages that a model could answer")
        if isinstance(messages[-1], dict) and messages[-1].get("role") == "assistant":
            messages = messages[:-1]
        try:
            told = self._ask(CHAT, {"model": self._model, "messages": messages, **self._options})
        except Refused as error:
            # of one row alone: of a model that there is not, or a key, every row's refusal is the same
            if error.status != 400:
                raise
            raise NoAnswer(f"is not answered: {error}") from error
        message = told["choices"][0]["message"]
        text = message.get("content") or message.get("refusal")
        if not text and message.get("tool_calls"):
            raise NoAnswer("is answered with a call of a tool, and the grader is run on texts")
        return str(text or "")

    def _ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        for number in range(1, N_TRIES + 1):
            try:
                return self._client.request("POST", path, json=body)
            except Refused as error:
                if error.status not in BUSY or number == N_TRIES:
                    raise
                time.sleep(PAUSE_S * 2 ** (number - 1))
        raise AssertionError  # the last try returns or raises


def template_of(said: str) -> str:
    """Return the template that a column, a path or a template stands for."""
    template = said if "{{" in said else f"{{{{ {said if said.startswith('item.') else f'item.{said}'} }}}}"
    try:
        parse(template)
    except TemplateRefused as error:
        fail(f"--sample '{said}' {error}. It is a column, such as answer, a path, or a template around one.", USAGE)
    return template


def answer_of(row: Row, template: str | None) -> str:
    """Return the answer that a row has: where a template says, else its last message, else its column `sample`.

    Raises:
        NoAnswer: there is none.
    """
    if template is not None:
        try:
            return render(template, Sample({**item_of(row), **row}, {}))
        except GradingFailed as error:
            raise NoAnswer(f"has no such answer: {error.details}") from error
    messages: Any = row.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    if isinstance(last, dict) and last.get("role") == "assistant" and isinstance(last.get("content"), str):
        return str(last["content"])
    if isinstance(row.get("sample"), str):
        return str(row["sample"])
    columns = ", ".join(sorted(row)[:10])
    raise NoAnswer(f"has no answer (it has {columns}): name its column with --sample, or let a --model answer")


def item_of(row: Row) -> Row:
    """Return what templates call item: the row's column of that name where it is an object, else its own columns."""
    inner: Any = row.get("item")
    return inner if isinstance(inner, dict) else {key: value for key, value in row.items() if key not in RESERVED}


def _rows(file: Path) -> Iterator[tuple[int, Row | NotJson]]:
    with opened(file) as stream:
        for line in read_lines(stream, max_line_bytes=MAX_LINE_BYTES):
            try:
                yield line.number, parse_object(line, max_line_bytes=MAX_LINE_BYTES)
            except NotJson as error:
                yield line.number, error


def _n_rows(file: Path, limit: int | None) -> int:
    with opened(file) as stream:
        n_rows = sum(1 for _ in read_lines(stream, max_line_bytes=MAX_LINE_BYTES))
    return n_rows if limit is None else min(n_rows, limit)


def show(told: dict[str, Any]) -> None:
    """Show the table of a run, and what comes of all rows."""
    n_columns = shutil.get_terminal_size().columns // 2 if sys.stdout.isatty() else None
    rows = [
        [
            str(row["line"]),
            " ".join((row["model_sample"] or "").split()),
            "-" if row["reward"] is None else f"{row['reward']:g}",
            "; ".join(f"{flag}: {details}" if details else flag for flag, details in row["errors"].items())[:n_columns],
        ]
        for row in told["rows"]
    ]
    table(["line", "answer", "reward", "errors"], rows, shorten=1)
    mean = "none" if told["mean_reward"] is None else f"{told['mean_reward']:.4g}"
    share = f" ({told['error_rate']:.0%})" if told["n_errors"] else ""
    n_graded = sum(row["reward"] is not None for row in told["rows"])
    typer.echo(
        f"{n_graded:,} of {told['n_rows']:,} rows graded: mean reward {mean}; {told['n_errors']:,} with errors{share}"
    )
