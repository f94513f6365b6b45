"""Three jobs of different methods and ranks in one step, and each alone; `python -m parity.jobs_together` tells of bits.

It prints a line of JSON: which families got the same bits, or `{"rows": false}` where this machine's matrix products give
a row other bits when other rows are beside it (MKL's do, unless it is told `MKL_CBWR=…,STRICT` before it is loaded).
"""

import json
import sys
from array import array
from dataclasses import replace
from typing import Any

import torch

from parity.families import FAMILIES, tiny_model
from parity.oracle import Grads, distance, our_grads, start, tuning_of
from tunesmith.data.render import Example
from tunesmith.engine.batch import MicroBatch, pack
from tunesmith.engine.document import Document
from tunesmith.engine.step import Tuning, forward_backward
from tunesmith.lm.last_layer import trim
from tunesmith.lm.load import wrap
from tunesmith.lm.lora import LoraModel
from tunesmith.methods.dpo import Dpo
from tunesmith.methods.reinforcement import Reinforcement
from tunesmith.methods.supervised import Supervised

RANKS = (8, 16, 32)
#: Elementwise kernels take 32 numbers at a time and the rest one by one, to other bits: widths of real models leave no rest.
SMALL: dict[str, Any] = {"intermediate_size": 64}
WIDE: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 1024, "spread": 0.1}


def micros() -> list[MicroBatch]:
    """Return a micro-batch for each method: plain chats, pairs and a group of samples (trees)."""
    generator = torch.Generator().manual_seed(1)

    def tokens(n: int) -> list[int]:
        return torch.randint(3, 97, (n,), generator=generator).tolist()

    def example(prompt: list[int], answer: list[int]) -> Example:
        return Example((*prompt, *answer), (0.0,) * len(prompt) + (1.0,) * len(answer), truncated=False)

    chats = [Document.of(example(tokens(n), tokens(n + 1))) for n in (4, 11, 2, 20)]
    prompts = [tokens(18), tokens(5)]
    pairs = [replace(Document.of(example(p, tokens(7)), example(p, tokens(3))), reference=(-20.0, -9.0)) for p in prompts]
    prompt = tokens(25)
    group = Document.of(*(example(prompt, tokens(n)) for n in (4, 9, 6)))
    samples = replace(group, before=array("f", [-4.0] * 19), weights=array("f", [1.2] * 4 + [-0.7] * 9 + [0.1] * 6))
    return [pack(chats), pack(pairs), pack([samples])]


def both(model: Any) -> list[tuple[float, Grads, float, Grads]]:
    """Return loss and gradients of each job together with the others, and alone."""
    base = wrap(model)
    lora = LoraModel(model)
    trim(base.decoder, lora.route)

    def jobs() -> list[Tuning]:
        made: list[Tuning] = []
        for slot, (method, rank) in enumerate(zip((Supervised(), Dpo(), Reinforcement()), RANKS, strict=True)):
            adapter = start(lora, seed=slot, rank=rank)
            lora.place(slot, adapter)
            made.append(tuning_of(method, adapter, slot=slot))
        return made

    together = jobs()
    forward_backward(base, lora, list(zip(together, micros(), strict=True)))
    apart = jobs()
    for tuning, micro in zip(apart, micros(), strict=True):
        forward_backward(base, lora, [(tuning, micro)])
    return [
        (one.tally.total, our_grads(one), other.tally.total, our_grads(other))
        for one, other in zip(together, apart, strict=True)
    ]


def same_bits(model: Any) -> bool:
    return all(
        loss == other and all(torch.equal(grads[name], others[name]) for name in others)
        for loss, grads, other, others in both(model)
    )


def furthest(model: Any) -> float:
    """Return the largest relative distance of a job's gradients from those it gets alone."""
    return max(distance(grads, others) for _, grads, _, others in both(model))


def rows_are_by_themselves() -> bool:
    generator = torch.Generator().manual_seed(0)
    for n_in, n_out in ((32, 64), (256, 1024)):
        weight, rows = torch.randn(n_out, n_in, generator=generator), torch.randn(40, n_in, generator=generator)
        back = torch.randn(40, n_out, generator=generator)
        for n in (1, 7, 33):
            if not torch.equal((rows @ weight.t())[:n], rows[:n] @ weight.t()) or not torch.equal(
                (back @ weight)[:n], back[:n] @ weight
            ):
                return False
    return True


def main() -> int:
    torch.set_num_threads(1)
    if not rows_are_by_themselves():
        sys.stdout.write(json.dumps({"rows": False}) + "\n")
        return 0
    found = {family: same_bits(tiny_model(family, **SMALL)) for family in FAMILIES}
    found["wide llama"] = same_bits(tiny_model("llama", **WIDE))
    sys.stdout.write(json.dumps({"rows": True, "same": found}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
