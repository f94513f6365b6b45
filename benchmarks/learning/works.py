"""The works that are learned: on which files, for how long, and what is measured of them."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tunesmith

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
BASE = Path(tunesmith.__file__).parent / "bases" / "tunesmith-nano"
CONTEXT = 1024
RANK, ALPHA = 16, 32
BETA = 0.1
GROUP = 8
#: What `reasoning_effort: none` gives an answer.
N_MOST_SAMPLED = 256
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Work:
    """Something to learn."""

    method: str
    folder: str
    held_out: str
    n_epochs: int
    batch: int
    #: Measures, and whether more is better.
    measures: dict[str, bool]
    #: Of the preferred answer's own loss.
    nll_weight: float = 0.0
    hyperparameters: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def training(self) -> Path:
        """The file that both sides train on."""
        return EXAMPLES / self.folder / "training.jsonl"


_PAIRS: dict[str, bool] = {"loss without NLL": False, "reward accuracy": True, "NLL of the preferred": False}
WORKS: dict[str, Work] = {
    "supervised": Work("supervised", "demo", "held_out.jsonl", 1, 4, {"loss": False}),
    "dpo, NLL 0": Work("dpo", "preferences", "validation.jsonl", 1, 4, _PAIRS, 0.0, {"beta": BETA}),
    "dpo, NLL 1": Work("dpo", "preferences", "validation.jsonl", 1, 4, _PAIRS, 1.0, {"beta": BETA}),
    "reinforcement": Work(
        "reinforcement", "reinforcement", "held_out.jsonl", 2, 8, {"reward, sampled": True, "reward, greedy": True},
        hyperparameters={
            "compute_multiplier": 1.0, "eval_interval": 10**6, "eval_samples": 1, "reasoning_effort": "none"
        },
    ),
}  # fmt: skip


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def ordered_rows(work: Work, seed: int) -> list[Row]:
    """Return the rows of all epochs in the order in which our loop takes them, so that TRL can be handed the same."""
    from tunesmith.engine.order import order

    rows = read_rows(work.training)
    return [rows[i] for epoch in range(work.n_epochs) for i in order(len(rows), seed=seed, epoch=epoch)]


def grader(work: Work) -> dict[str, Any]:
    """Return the grader of a work."""
    return json.loads((EXAMPLES / work.folder / "grader.json").read_text())
