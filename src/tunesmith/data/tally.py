"""What validation counts in a file, and what it finds odd: rows that lose their end, older names, rows in both files."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from tunesmith.data.lengths import Context
from tunesmith.data.pairs import OLDER, Pair
from tunesmith.data.render import Measure
from tunesmith.data.rows import Placed
from tunesmith.data.spans import Draft

_N_SHOWN: Final = 5


@dataclass(slots=True)
class Tally:
    """What was counted in one file."""

    n_examples: int = 0
    tokens: int = 0
    trainable_tokens: int = 0
    #: Rows that lost their end, and the lines of the first few.
    n_truncated: int = 0
    truncated_lines: list[int] = field(default_factory=list[int])
    #: The longest row: its tokens before truncation, and its line.
    n_longest: int = 0
    longest_line: int = 0
    #: Rows with the older names of the answers, and the first one's line.
    n_older: int = 0
    older_line: int = 0
    #: A number for each row's texts, and its line; empty where there is no second file to compare with.
    marks: "array[int]" = field(default_factory=lambda: array("q"))
    lines: "array[int]" = field(default_factory=lambda: array("q"))

    def add(self, row: Placed, measures: Sequence[Measure], context: Context) -> None:
        """Count one row."""
        n_whole = max(measure.n_whole for measure in measures)
        self.n_examples += 1
        self.tokens += sum(measure.n_tokens for measure in measures)
        self.trainable_tokens += sum(measure.n_trained for measure in measures)
        if n_whole > self.n_longest:
            self.n_longest, self.longest_line = n_whole, row.line
        if n_whole > context.n_tokens:
            self.n_truncated += 1
            if len(self.truncated_lines) < _N_SHOWN:
                self.truncated_lines.append(row.line)
        if isinstance(row, Pair) and row.older_names:
            self.n_older += 1
            self.older_line = self.older_line or row.line

    def mark(self, row: Placed, drafts: Sequence[Draft]) -> None:
        """Remember a row by its texts, to find it in another file."""
        self.marks.append(hash(tuple(draft.text for draft in drafts)))
        self.lines.append(row.line)

    def warnings(self, kind: str, context: Context) -> Iterator[str]:
        """Say what is odd about the file, which is the job's `training` or `validation` file."""
        if self.n_truncated:
            yield (
                f"{self.n_truncated:,} of {self.n_examples:,} examples of the {kind} file exceed the context of "
                f"{context.base} ({context.n_tokens:,} tokens) and lose their end: line "
                f"{_listed(self.truncated_lines, self.n_truncated)}. The longest is line {self.longest_line} with "
                f"{self.n_longest:,} tokens. {context.way_out()}"
            )
        if self.n_older:
            first = f"from line {self.older_line} on" if self.n_older > 1 else f"line {self.older_line}"
            read = " and ".join(f"{older} as {name}" for name, older in OLDER.items())
            yield (
                f"{self.n_older:,} of {self.n_examples:,} examples of the {kind} file have older names ({first}): {read} is "
                "how they are read."
            )


def overlap(train: Tally, valid: Tally) -> Iterator[str]:
    """Say which rows of the validation file are trained on."""
    known = set(valid.marks).intersection(train.marks)
    lines = [line for mark, line in zip(valid.marks, valid.lines, strict=True) if mark in known] if known else []
    if lines:
        yield (
            f"{len(lines):,} of {valid.n_examples:,} examples of the validation file are in the training file too: line "
            f"{_listed(lines[:_N_SHOWN], len(lines))}. What is measured on them does not tell how the model does on others."
        )


def _listed(lines: list[int], n_total: int) -> str:
    more = n_total - len(lines)
    return ", ".join(map(str, lines)) + (f" and {more:,} more" if more else "")
