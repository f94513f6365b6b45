# pyright: basic
"""One pass forward and back over a list of (job, micro-batch), and the sums each job keeps until its update.

One job is the normal case. With several, their tokens share the base's matrix products, each goes through its own adapter,
and every job gets the gradients it would get alone. The division by the count happens in `Tuning.update` and nowhere else.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tunesmith.core.failpoint import failpoint
from tunesmith.engine.batch import MicroBatch, join
from tunesmith.engine.optim import Optimizer
from tunesmith.engine.ranks import ALONE, Ranks
from tunesmith.lm.load import Base
from tunesmith.lm.lora import Adapter, LoraModel
from tunesmith.lm.score import score
from tunesmith.methods.base import LossSum, Method, Scored


@dataclass(slots=True)
class Tally:
    """Sums over micro-batches: of the loss and of the method's further figures, with their counts."""

    total: float = 0.0
    count: float = 0.0
    metrics: dict[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])

    def add(self, loss: LossSum) -> None:
        """Add a micro-batch."""
        self.total += float(loss.total.detach())
        self.count += loss.count
        for name, (figure, count) in loss.metrics.items():
            before, counted = self.metrics.get(name, (0.0, 0.0))
            self.metrics[name] = (before + float(figure), counted + count)

    def pooled(self, ranks: Ranks) -> "Tally":
        """Return the sums over all processes."""
        if ranks.size == 1:
            return self
        whole = Tally()
        for each in ranks.pooled(self):
            whole.total += each.total
            whole.count += each.count
            for name, (figure, count) in each.metrics.items():
                before, counted = whole.metrics.get(name, (0.0, 0.0))
                whole.metrics[name] = (before + figure, counted + count)
        return whole

    def means(self, prefix: str) -> dict[str, float]:
        """Return `{prefix}loss` and the further figures, divided; empty if nothing was counted."""
        if not self.count:
            return {}
        means = {f"{prefix}{name}": figure / count for name, (figure, count) in self.metrics.items() if count}
        return {f"{prefix}loss": self.total / self.count, **means}


@dataclass(slots=True)
class Tuning:
    """One job inside the engine."""

    slot: int
    method: Method
    adapter: Adapter
    optimizer: Optimizer
    tally: Tally = field(default_factory=Tally)

    def update(self, *, n_idle: int = 0, ranks: Ranks = ALONE) -> dict[str, float]:
        """Apply the gradients gathered since the last update; return the step's figures (empty if nothing was trained).

        `n_idle` counts in the division as well: what was left out because its gradient is nought.
        """
        tally, self.tally = self.tally.pooled(ranks), Tally()
        if not tally.count:
            self.optimizer.skip()
            return {}
        tally.count += n_idle
        ranks.add_gradients(self.optimizer.parameters)
        self.optimizer.update(tally.count)
        self.adapter.sync()
        return tally.means("train_")


def forward_backward(base: Base, lora: LoraModel, work: Sequence[tuple[Tuning, MicroBatch]]) -> None:
    """Score the micro-batches in one row and add to each job's gradients and sums."""
    losses = _losses(base, lora, [(tuning.slot, tuning.method, micro) for tuning, micro in work])
    failpoint("train.backward")
    torch.stack([loss.total for loss in losses]).sum().backward()
    for (tuning, _), loss in zip(work, losses, strict=True):
        tuning.tally.add(loss)


def keep_company(base: Base, lora: LoraModel, tuning: Tuning, micro: MicroBatch) -> None:
    """Make the passes that other processes make, and add nothing: over a spread base they could not make them alone."""
    (loss,) = _losses(base, lora, [(tuning.slot, tuning.method, micro)])
    (loss.total * 0.0).backward()


@torch.no_grad()
def evaluate(
    base: Base, lora: LoraModel, tuning: Tuning, micros: Iterable[MicroBatch], tally: Tally, *, ranks: Ranks = ALONE
) -> None:
    """Add the loss and figures of micro-batches to a tally, without training; of several processes each does its part."""
    for micro, counts in ranks.rounds(micros):
        (loss,) = _losses(base, lora, [(tuning.slot, tuning.method, micro)])
        failpoint("train.evaluate")
        if counts:
            tally.add(loss)


def _losses(base: Base, lora: LoraModel, work: Sequence[tuple[int, Method, MicroBatch]]) -> list[LossSum]:
    joined = join([(slot, micro) for slot, _, micro in work])
    scores = score(base, lora, joined.packed)
    sizes = list(joined.n_trained)
    parts: Any = zip(work, scores.logp_N.split(sizes), scores.correct_N.split(sizes), strict=True)
    losses: list[LossSum] = []
    for (_, method, micro), logp_N, correct_N in parts:
        weights_N: Tensor = micro.weights_N.to(logp_N.device)
        before_N = None if micro.before_N is None else micro.before_N.to(logp_N.device)
        reference_B = None if micro.reference_B is None else micro.reference_B.to(logp_N.device)
        losses.append(method.loss(Scored(logp_N, correct_N, weights_N, micro.n_trained, before_N, reference_B)))
    return losses
