"""What is counted in a file, and what is odd about it: rows that lose their end, older names, rows that are there twice."""

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tunesmith.data.lengths import Context
from tunesmith.data.pairs import OLDER, Pair
from tunesmith.data.render import Measure
from tunesmith.data.rows import Placed
from tunesmith.data.spans import Draft

_N_SHOWN: Final = 5
_N_DUPLICATES: Final = 100
#: Examples below which tuning seldom shows.
N_FEW: Final = 50
#: Share of the tokens that are trained below which most of the work is reading.
_SMALL_SHARE: Final = 0.02


@dataclass(slots=True)
class Tally:
    """What was counted in one file."""

    n_examples: int = 0
    tokens: int = 0
    trainable_tokens: int = 0
    #: How many rows have at most so many tokens, and more than half of that, before truncation: by powers of two.
    lengths: "Counter[int]" = field(default_factory=Counter[int])
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
        self.lengths[1 << max(0, n_whole - 1).bit_length()] += 1
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

    def duplicates(self) -> list[tuple[int, int]]:
        """Return the lines of rows that are the same as an earlier one, each with that one's; rows must be marked."""
        first: dict[int, int] = {}
        found: list[tuple[int, int]] = []
        for mark, line in zip(self.marks, self.lines, strict=True):
            earlier = first.setdefault(mark, line)
            if earlier != line:
                found.append((line, earlier))
        return found

    def told(self, whole: "Tally | None" = None) -> dict[str, Any]:
        """Return the figures by name; `whole` has those of the whole file where only a part was read."""
        counts, twice = whole or self, self.duplicates()
        return {
            "examples": counts.n_examples,
            "tokens": counts.tokens,
            "trainable_tokens": counts.trainable_tokens,
            "truncated": {"examples": self.n_truncated, "lines": self.truncated_lines},
            "longest": {"line": self.longest_line, "tokens": self.n_longest} if self.n_examples else None,
            "lengths": [{"up_to": edge, "examples": n} for edge, n in sorted(self.lengths.items())],
            "duplicates": {
                "examples": len(twice),
                "lines": [{"line": line, "as": earlier} for line, earlier in twice[:_N_DUPLICATES]],
            },
        }

    def advice(self, kind: str, *, whole: bool = True) -> Iterator[str]:
        """Say what a person would look at before tuning on the file; rows must be marked."""
        twice = self.duplicates()
        if twice:
            shown = [f"{line} (as line {earlier})" for line, earlier in twice[:_N_SHOWN]]
            yield (
                f"{len(twice):,} of {self.n_examples:,} examples of the {kind} file are the same as an earlier one: line "
                f"{_listed(shown, len(twice))}. What is there twice is learnt twice as hard."
            )
        if kind != "training":
            return
        if whole and self.n_examples < N_FEW:
            yield f"The training file has {self.n_examples} examples: with fewer than {N_FEW} tuning seldom shows."
        if 0 < self.trainable_tokens < _SMALL_SHARE * self.tokens:
            yield (
                f"Of {self.tokens:,} tokens of the training file {self.trainable_tokens:,} are trained "
                f"({self.trainable_tokens / self.tokens:.1%}): all others are read at the same cost."
            )

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


def _listed(lines: Sequence[object], n_total: int) -> str:
    more = n_total - len(lines)
    return ", ".join(map(str, lines)) + (f" and {more:,} more" if more else "")
