"""The works that are measured: what is trained, which of TRL's configurations it is measured against, and the goals."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.methods import shapes
from benchmarks.methods.watch import Stretch

CONTEXT = 1024
RANK, ALPHA = 16, 32
TRAIN, VALID = "train.jsonl", "valid.jsonl"
DEFAULT, BEST = "trl-default", "trl-best"
#: What TRL's best have in common: nothing is computed twice, weights in the type that this processor computes fastest in.
_LEAN: dict[str, Any] = {"bf16": False, "gradient_checkpointing": False, "weights": "native"}
_PACKED = {**_LEAN, "packing": True, "packing_strategy": "bfd"}
_GRADER = {
    "type": "text_similarity", "name": "near", "input": "{{ sample.output_text }}", "reference": "{{ item.answer }}",
    "evaluation_metric": "fuzzy_match",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Work:
    """Something to train, on both sides with the same rows in the same order."""

    name: str
    title: str
    method: str
    row: Callable[..., shapes.Row]
    #: Of the rates.
    unit: str
    n_steps: int
    batch: int
    #: What each configuration of TRL changes of its defaults; `weights: native` is ours, see `peer.py`.
    peers: dict[str, dict[str, Any]]
    stretches: tuple[Stretch, ...]
    #: Least ratio of processor seconds, by configuration and stretch.
    goals: dict[tuple[str, str], float]
    n_epochs: int = 1
    vocabulary: int = shapes.VOCABULARY
    hyperparameters: dict[str, Any] = field(default_factory=dict[str, Any])
    config: dict[str, Any] = field(default_factory=dict[str, Any])

    def build(self, folder: Path) -> None:
        """Write the base and the files of the work."""
        shapes.build_base(folder / "base", self.vocabulary, stops=self.method == "reinforcement")
        shapes.write_rows(folder / "blobs" / TRAIN, self.n_steps * self.batch, self.row)
        if self.method == "reinforcement":
            shapes.write_rows(folder / "blobs" / VALID, 1, self.row, seed=1)


_ALL, _FIRST, _LATER = "all", "first epoch", "later epochs"

WORKS: dict[str, Work] = {
    work.name: work
    for work in (
        Work(
            "chats",
            "supervised, mixed chat lengths",
            "supervised",
            shapes.chat,
            "trained tokens",
            n_steps=8,
            batch=4,
            peers={DEFAULT: {}, "trl-default-fp32": {"bf16": False}, BEST: _PACKED},
            stretches=(Stretch(_ALL, 2),),
            goals={(DEFAULT, _ALL): 5.0, (BEST, _ALL): 1.8},
        ),
        Work(
            "system",
            "supervised, common system prompt (2/3 of the tokens)",
            "supervised",
            shapes.chat_with_system,
            "trained tokens",
            n_steps=6,
            batch=8,
            # rows of 1,024 tokens hold one chat of these and a half: so many make a step as eight chats have tokens
            peers={
                DEFAULT: {},
                BEST: {**_PACKED, "gradient_accumulation_steps": 6},
                "trl-padding-free": {**_LEAN, "padding_free": True, "max_length": None},
            },
            stretches=(Stretch(_ALL, 2),),
            goals={(BEST, _ALL): 4.0},
        ),
        Work(
            "vocabulary",
            "supervised, vocabulary of 151,936",
            "supervised",
            shapes.chat,
            "trained tokens",
            n_steps=6,
            batch=4,
            peers={DEFAULT: {}, BEST: _PACKED},
            stretches=(Stretch(_ALL, 2),),
            goals={(DEFAULT, _ALL): 10.0, (BEST, _ALL): 5.0},
            vocabulary=shapes.LARGE_VOCABULARY,
        ),
        Work(
            "dpo",
            "dpo",
            "dpo",
            shapes.pair,
            "pairs",
            n_steps=6,
            batch=4,
            peers={DEFAULT: {}, BEST: {**_LEAN, "precompute_ref_log_probs": True}, "trl-lean": _LEAN},
            stretches=(Stretch(_FIRST, 1, 6), Stretch(_LATER, 6)),
            goals={
                (DEFAULT, _FIRST): 5.0,
                (DEFAULT, _LATER): 5.0,
                (BEST, _FIRST): 4.0,
                (BEST, _LATER): 4.0,
            },
            n_epochs=2,
            hyperparameters={"beta": 0.1},
        ),
        Work(
            "reinforcement",
            "reinforcement step, 2 prompts with 8 answers of about 50 tokens",
            "reinforcement",
            shapes.prompt,
            "sampled tokens",
            n_steps=7,
            batch=2,
            peers={
                DEFAULT: {},
                BEST: _LEAN,
                "trl-by-prompt": {**_LEAN, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2},
            },
            # our last step ends with an evaluation
            stretches=(Stretch(_ALL, 1, 6),),
            goals={(DEFAULT, _ALL): 5.0, (BEST, _ALL): 4.0},
            hyperparameters={
                "compute_multiplier": 1.0,
                "eval_interval": 10**6,
                "eval_samples": 1,
                "reasoning_effort": "none",
            },
            config={"grader": _GRADER},
        ),
    )
}
GROUP = 8
#: What `reasoning_effort: none` gives an answer.
N_MOST_SAMPLED = 256
