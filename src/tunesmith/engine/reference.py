# pyright: basic
"""What the model that training began with says of each row's branches: computed when a row first comes, and kept.

It is kept in checkpoints too: how a row was packed when it first came changes the last bits, and a run that goes on from a
checkpoint is to end with the same ones.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tunesmith.engine.batch import join, micro_batches
from tunesmith.engine.document import Document
from tunesmith.engine.run import Bench
from tunesmith.lm.score import score

_PREFIX = "reference."
_N_BRANCHES = 2


class Reference:
    """Sums of log-probabilities under the starting weights, by file and row; every row is one document of two branches."""

    def __init__(self, bench: Bench, n_rows: Mapping[str, int], tensors: Mapping[str, Tensor]) -> None:
        self._bench = bench
        self._known: dict[str, Tensor] = {
            split: tensors.get(_PREFIX + split, torch.full((n, _N_BRANCHES), torch.nan)) for split, n in n_rows.items()
        }

    def tensors(self) -> dict[str, Tensor]:
        """Return everything known; what is not yet is NaN."""
        return {_PREFIX + split: known for split, known in self._known.items()}

    def complete(self, split: str, numbered: Sequence[tuple[int, Document]]) -> list[Document]:
        """Return the documents of rows with what the reference says of their branches."""
        known = self._known[split]
        # one whose input fills the context is not trained on, and stays unknown
        missing = [(row, document) for row, document in numbered if document.trained and known[row].isnan().any()]
        if missing:
            sums_P2 = self._ask([document for _, document in missing]).view(-1, _N_BRANCHES)
            known[[row for row, _ in missing]] = sums_P2
        return [replace(document, reference=tuple(known[row].tolist())) for row, document in numbered]

    @torch.no_grad()
    def _ask(self, documents: list[Document]) -> Tensor:
        bench = self._bench
        run = bench.run
        micros = list(micro_batches(documents, token_budget=run.token_budget, tree_budget=run.tree_budget))
        ends = list(itertools.accumulate(len(micro.n_trained) for micro in micros))
        sums_B = torch.zeros(ends[-1], device=bench.base.device)
        for number, counts in bench.ranks.rounds(range(len(micros))):
            micro = micros[number]
            scores = score(bench.base, bench.lora, join([(bench.start_slot, micro)]).packed)
            if counts:
                branches = scores.logp_N.split(list(micro.n_trained))
                sums_B[ends[number] - len(branches) : ends[number]] = torch.stack([branch.sum() for branch in branches])
        bench.ranks.add(sums_B)
        return sums_B.cpu()
