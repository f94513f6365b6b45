"""The rows of a file that are worth a look: the worst first, each with its reasons."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import nlargest
from typing import Final

from tunesmith.data.lengths import Context
from tunesmith.data.rows import Problems
from tunesmith.data.survey import Seen

#: Below this share of trained tokens a row is mostly read.
_SMALL_SHARE: Final = 0.02
#: Rows that are kept of each kind of oddity, so that files of any size go in little memory.
_N_KEPT: Final = 50


@dataclass(frozen=True, slots=True)
class Oddity:
    """A row and what is odd about it."""

    line: int
    reasons: list[str]


@dataclass(slots=True)
class Oddities:
    """Collects while a file is read; `worst` tells at its end."""

    context: Context
    _long: list[tuple[int, int, int]] = field(default_factory=list[tuple[int, int, int]])
    _thin: list[tuple[float, int, int, int]] = field(default_factory=list[tuple[float, int, int, int]])

    def add(self, seen: Seen) -> None:
        """Look at one row."""
        n_whole = max(measure.n_whole for measure in seen.measures)
        n_tokens = sum(measure.n_tokens for measure in seen.measures)
        n_trained = sum(measure.n_trained for measure in seen.measures)
        if n_whole > self.context.n_tokens:
            self._long.append((n_whole - self.context.n_tokens, seen.row.line, n_whole))
        elif 0 < n_trained < _SMALL_SHARE * n_tokens:
            self._thin.append((1 - n_trained / n_tokens, seen.row.line, n_trained, n_tokens))
        if len(self._long) > 2 * _N_KEPT:
            self._long = nlargest(_N_KEPT, self._long)
        if len(self._thin) > 2 * _N_KEPT:
            self._thin = nlargest(_N_KEPT, self._thin)

    def worst(
        self, n: int, problems: Problems, twice: list[tuple[int, int]], known: Mapping[int, int] | None = None
    ) -> list[Oddity]:
        """Return the worst rows: those that cannot be used, then those that lose their end, are elsewhere, are there twice.

        `twice` has lines and the earlier ones that they repeat, `known` lines and those of the validation file.
        """
        reasons: dict[int, list[str]] = {}
        for problem in sorted(problems.found, key=lambda problem: problem.line):
            reasons.setdefault(problem.line, []).append(f"cannot be used: {problem.text}")
        for n_lost, line, n_whole in sorted(self._long, reverse=True):
            told = f"loses its last {n_lost:,} of {n_whole:,} tokens: the context of {self.context.base} has "
            reasons.setdefault(line, []).append(f"{told}{self.context.n_tokens:,}")
        for line, other in (known or {}).items():
            reasons.setdefault(line, []).append(f"is line {other} of the validation file too")
        for line, earlier in twice:
            reasons.setdefault(line, []).append(f"is the same as line {earlier}")
        for _, line, n_trained, n_tokens in sorted(self._thin, reverse=True):
            reasons.setdefault(line, []).append(f"trains {n_trained:,} of its {n_tokens:,} tokens")
        return [Oddity(line, told) for line, told in list(reasons.items())[:n]]
