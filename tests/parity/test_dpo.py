"""Preferences: TRL's `DPOTrainer` on the same pairs, with the same adapter and the same reference.

Its reference is the adapter that it was made with, as when tuning goes on from a tuned model; an adapter whose second
factors are nought is the bare base. Its weights are set afterwards, as if some steps had gone by.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from parity.families import FAMILIES, tiny_model
from parity.oracle import (
    PLAIN,
    Grads,
    assert_as_near_in_bf16,
    distance,
    our_grads,
    peft_model,
    plain,
    rounded,
    set_weights,
    start,
    step,
    tokenizer,
    train,
    tuning_of,
    words,
)
from tunesmith.data.render import Example
from tunesmith.engine.document import Document, n_common, tree
from tunesmith.engine.ranks import ALONE
from tunesmith.engine.reference import Reference
from tunesmith.engine.run import Bench, Run
from tunesmith.engine.step import Tuning
from tunesmith.lm.load import Base, wrap
from tunesmith.lm.lora import Adapter, LoraModel
from tunesmith.methods.dpo import NLL_WEIGHT, Dpo

pytestmark = pytest.mark.filterwarnings("ignore")

#: Prompt, preferred answer, the other one: their lengths, among them answers of one token and one that begin alike.
LENGTHS = ((20, 6, 9), (9, 4, 1), (31, 12, 5), (3, 2, 17))
SAME_LENGTHS = tuple((prompt, 6, other) for prompt, _, other in LENGTHS)
END = 2

Pairs = list[tuple[list[int], list[int], list[int]]]


def pairs(lengths: tuple[tuple[int, int, int], ...] = LENGTHS) -> Pairs:
    """Return prompts and answers; the answers of the third begin alike, and all end with the end of a turn."""
    generator = torch.Generator().manual_seed(5)
    made: Pairs = []
    for number, sizes in enumerate(lengths):
        prompt, preferred, other = (torch.randint(3, 97, (size,), generator=generator).tolist() for size in sizes)
        if number == 2:
            other[:3] = preferred[:3]
        preferred[-1] = other[-1] = END
        made.append((prompt, preferred, other))
    return made


def document(prompt: list[int], preferred: list[int], other: list[int], *, shared: bool) -> Document:
    """Return a pair as the engine makes it, or side by side without anything in common."""
    plain_ones = [
        Document.of(Example((*prompt, *answer), (0.0,) * len(prompt) + (1.0,) * len(answer), truncated=False))
        for answer in (preferred, other)
    ]
    return tree(plain_ones, n_common(plain_ones) if shared else 0)


class Ours:
    """An engine with the policy in slot 0 and what the tuning began with in slot 1."""

    def __init__(self, model: Any, *, tuned_start: bool) -> None:
        self.base: Base = wrap(model)
        self.lora = LoraModel(model)
        self.policy = start(self.lora)
        self.began: Adapter = start(self.lora, seed=4) if tuned_start else self.lora.fresh(seed=4)
        self.lora.place(0, self.policy)
        self.lora.place(1, self.began)
        self._start_slot = 1 if tuned_start else None

    def run(self, method: Dpo, made: Pairs, *, shared: bool = True, token_budget: int = 10_000) -> tuple[Tuning, Grads]:
        for parameter in self.policy.parameters():
            parameter.grad = None
        tuning = tuning_of(method, self.policy)
        nobody: Any = None
        settings: Any = {"n_epochs": 1, "batch_size": 4, "learning_rate_multiplier": 1.0, "seed": 1, "output_key": "o"}
        run = Run(method=method, recipe={}, token_budget=token_budget, **settings)
        reference = Reference(
            Bench(run, self.base, self.lora, tuning, self._start_slot, 1, nobody, nobody, ALONE), {"train": len(made)}, {}
        )
        documents = reference.complete("train", [(i, document(*pair, shared=shared)) for i, pair in enumerate(made)])
        train(self.base, self.lora, tuning, documents, token_budget)
        return tuning, our_grads(tuning)


def theirs(
    model: Any, ours: Ours, made: Pairs, folder: Path, *, bf16: bool = False, **knobs: Any
) -> tuple[dict[str, float], Grads]:
    """Return loss, reward margin and accuracy, and gradients."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    rows = [{"prompt": words(p), "chosen": f" {words(c)}", "rejected": f" {words(r)}"} for p, c, r in made]
    config = DPOConfig(output_dir=str(folder), per_device_train_batch_size=len(made), **PLAIN, **knobs)
    trainer = DPOTrainer(
        model=peft_model(model, ours.began, folder / "began"), args=config, train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer(),
    )  # fmt: skip
    set_weights(trainer.model, ours.policy)
    inputs = next(iter(trainer.get_train_dataloader()))
    assert int(inputs["attention_mask"].sum()) == sum(2 * len(p) + len(c) + len(r) for p, c, r in made)
    loss, grads = step(trainer, inputs, bf16=bf16)
    said = trainer._metrics["train"]
    return {
        "loss": loss,
        "reward_margin": float(said["rewards/margins"][0]),
        "reward_accuracy": float(said["rewards/accuracies"][0]),
    }, {name: grad for name, grad in grads.items() if ".ref." not in name}


@pytest.mark.parametrize(("tuned_start", "beta"), [(False, 0.1), (True, 0.5)], ids=["from the base", "from a tuned model"])
@pytest.mark.parametrize("family", FAMILIES)
def test_fp32_gradients_are_the_oracles(tmp_path: Path, family: str, tuned_start: bool, beta: float) -> None:
    ours = Ours(tiny_model(family), tuned_start=tuned_start)
    figures, grads = theirs(plain(family), ours, pairs(), tmp_path, beta=beta)
    for shared in (True, False):
        for token_budget in (10_000, 60):
            tuning, our = ours.run(Dpo(beta=beta, nll_weight=0.0), pairs(), shared=shared, token_budget=token_budget)
            means = tuning.tally.means("")
            # A margin is what is left of four sums of log-probabilities, each some hundred times as large.
            assert {name: means[name] for name in figures} == pytest.approx(figures, rel=3e-6, abs=1e-5)
            assert distance(our, grads) <= 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_gradients_are_as_near_as_the_oracles_own(tmp_path: Path, family: str) -> None:
    ours = Ours(rounded(family), tuned_start=True)
    _, grads = ours.run(Dpo(beta=0.1, nll_weight=0.0), pairs())
    _, exact = theirs(plain(family, bf16=True), ours, pairs(), tmp_path / "fp32", beta=0.1)
    _, autocast = theirs(plain(family, bf16=True), ours, pairs(), tmp_path / "bf16", bf16=True, beta=0.1)
    assert_as_near_in_bf16(grads, autocast, exact)


def test_the_answers_own_loss_is_the_oracles_where_all_are_as_long(tmp_path: Path) -> None:
    """Theirs is a mean over all tokens of a batch, ours over each answer's: the same where all have the same length."""
    ours = Ours(tiny_model("llama"), tuned_start=True)
    figures, grads = theirs(
        plain("llama"), ours, pairs(SAME_LENGTHS), tmp_path, beta=0.1, loss_type=["sigmoid", "sft"],
        loss_weights=[1.0, NLL_WEIGHT],
    )  # fmt: skip
    tuning, our = ours.run(Dpo(beta=0.1), pairs(SAME_LENGTHS), token_budget=60)
    assert tuning.tally.means("")["loss"] == pytest.approx(figures["loss"], rel=1e-6)
    assert distance(our, grads) <= 1e-5


@pytest.mark.parametrize("tuned_start", [False, True])
def test_with_the_answers_own_loss_it_is_the_definition_written_out(tmp_path: Path, tuned_start: bool) -> None:
    ours = Ours(tiny_model("llama"), tuned_start=tuned_start)
    model = peft_model(plain("llama"), ours.policy, tmp_path)

    def logps(prompt: list[int], answer: list[int]) -> torch.Tensor:
        tokens = torch.tensor([*prompt, *answer])
        logits = model(input_ids=tokens[None]).logits[0, len(prompt) - 1 : -1].float()
        return torch.log_softmax(logits, -1).gather(1, tokens[len(prompt) :, None])[:, 0]

    set_weights(model, ours.began)
    with torch.no_grad():
        before = [[logps(prompt, answer).sum() for answer in answers] for prompt, *answers in pairs()]
    set_weights(model, ours.policy)
    losses: list[torch.Tensor] = []
    for (prompt, preferred, other), (start_preferred, start_other) in zip(pairs(), before, strict=True):
        now, now_other = logps(prompt, preferred), logps(prompt, other)
        margin = 0.3 * (now.sum() - start_preferred - now_other.sum() + start_other)
        losses.append(-torch.nn.functional.logsigmoid(margin) - NLL_WEIGHT * now.mean())
    loss = torch.stack(losses).mean()
    loss.backward()
    exact = {
        name.removeprefix("base_model.model.").removesuffix(".default.weight"): parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    tuning, our = ours.run(Dpo(beta=0.3), pairs(), token_budget=60)
    assert tuning.tally.means("")["loss"] == pytest.approx(float(loss), rel=1e-6)
    assert distance(our, exact) <= 1e-5
