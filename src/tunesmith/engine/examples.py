# pyright: basic
"""Documents from files: rows in the order of seed and epoch, validated by their own loss.

Validation: one batch every `VALID_EVERY` steps and at epoch ends (`valid_*`), the whole file at epoch ends (`full_valid_*`).
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

from torch import Tensor

from tunesmith.engine.batch import micro_batches
from tunesmith.engine.document import Document
from tunesmith.engine.order import Shuffled
from tunesmith.engine.reference import Reference
from tunesmith.engine.run import Bench, Taken
from tunesmith.engine.step import Tally, evaluate
from tunesmith.methods.auto import steps_per_epoch

#: Steps between two validation batches.
VALID_EVERY: Final = 10
#: Rows of a validation batch, at least (a larger batch size makes it larger).
N_VALID_ROWS: Final = 8
#: Rows of a validation that are held at the same time.
_N_ROWS_AT_ONCE: Final = 64


class Rows(Protocol):
    """The rows of a file as documents; a row may give several."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> list[Document]: ...


class Examples:
    """The rows of the training file, and of the validation file if there is one."""

    def __init__(self, train: Rows, valid: Rows | None = None) -> None:
        self._train = train
        self._valid = valid if valid is not None and len(valid) else None
        self._reference: Reference | None = None

    def attach(self, bench: Bench, tensors: dict[str, Tensor]) -> None:
        """Begin to work."""
        self._bench = bench
        self._steps_per_epoch = steps_per_epoch(len(self._train), bench.run.batch_size)
        self._order = Shuffled(len(self._train), batch_size=bench.run.batch_size, seed=bench.run.seed)
        if bench.run.method.needs_reference:
            n_rows = {"train": len(self._train), "valid": len(self._valid or ())}
            self._reference = Reference(bench, n_rows, tensors)

    @property
    def n_rows(self) -> int:
        """Return the rows of the training file."""
        return len(self._train)

    def begin(self) -> dict[str, Any]:
        """Return nothing: a loss before the first step tells nobody anything."""
        return {}

    def take(self, step: int) -> Taken:
        """Return the documents of a step."""
        rows = self._order.rows(step)
        documents = self._documents("train", rows)
        return Taken(documents, rows, sum(document.n_counted for document in documents))

    def validate(self, step: int, values: dict[str, Any]) -> dict[str, Any]:
        """Return the step's figures with loss and figures on the validation file.

        Raises:
            FloatingPointError: where an epoch, and with it a checkpoint, ends, the model says what is no number.
        """
        valid = self._valid
        at_end = step % self._steps_per_epoch == 0
        if valid is None and at_end:
            self._score(step, "train", self._order.rows(step)[:1], "")
        if valid is None or not (at_end or step % VALID_EVERY == 0):
            return values
        n_rows = min(len(valid), max(N_VALID_ROWS, self._bench.run.batch_size))
        start = (step // VALID_EVERY) * n_rows
        values = values | self._score(step, "valid", [(start + i) % len(valid) for i in range(n_rows)], "valid_")
        return values | (self._score(step, "valid", range(len(valid)), "full_valid_") if at_end else {})

    def saves_at(self, step: int) -> bool:
        """Say whether an epoch ends here."""
        return step % self._steps_per_epoch == 0

    def tensors(self) -> dict[str, Tensor]:
        """Return what the reference has said so far."""
        return {} if self._reference is None else self._reference.tensors()

    def _documents(self, split: str, rows: Sequence[int]) -> list[Document]:
        source = self._train if split == "train" else self._valid
        assert source is not None
        if self._reference is None:
            return [document for row in rows for document in source[row]]
        return self._reference.complete(split, [(row, document) for row in rows for document in source[row]])

    def _score(self, step: int, split: str, rows: Iterable[int], prefix: str) -> dict[str, float]:
        bench, tally = self._bench, Tally()
        picked = list(rows)
        for start in range(0, len(picked), _N_ROWS_AT_ONCE):
            documents = self._documents(split, picked[start : start + _N_ROWS_AT_ONCE])
            run = bench.run
            micros = micro_batches(documents, token_budget=run.token_budget, tree_budget=run.tree_budget)
            evaluate(bench.base, bench.lora, bench.tuning, micros, tally, ranks=bench.ranks)
        means = tally.pooled(bench.ranks).means(prefix)
        if not math.isfinite(means.get(f"{prefix}loss", 0.0)):
            file = "training" if split == "train" else "validation"
            raise FloatingPointError(f"the loss on the {file} file after step {step} is not finite")
        return means
