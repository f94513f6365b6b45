"""Supervised: TRL's `SFTTrainer` on the same batch with the same adapter."""

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
    start,
    step,
    tokenizer,
    train,
    tuning_of,
)
from tunesmith.data.render import Example
from tunesmith.engine.document import Document
from tunesmith.lm.load import wrap
from tunesmith.lm.lora import Adapter, LoraModel
from tunesmith.methods.supervised import Supervised

#: Warnings of the oracle's own making, at its start.
pytestmark = pytest.mark.filterwarnings("ignore")


def examples() -> list[Example]:
    """Chats of several lengths, trained in one or two places each."""
    generator = torch.Generator().manual_seed(11)
    made: list[Example] = []
    for length, trained in ((9, (4, 9)), (23, (10, 16)), (5, (2, 4)), (17, (12, 17))):
        tokens = torch.randint(3, 97, (length,), generator=generator).tolist()
        weights = [float(trained[0] <= i < trained[1]) for i in range(length)]
        if length == 23:
            weights[20:] = [1.0, 1.0, 1.0]
        made.append(Example(tokens=tuple(tokens), weights=tuple(weights), truncated=False))
    return made


def ours(model: Any, token_budget: int) -> tuple[float, float, Grads, Adapter]:
    """Return loss, token accuracy and gradients."""
    base = wrap(model)
    lora = LoraModel(model)
    tuning = tuning_of(Supervised(), start(lora))
    lora.place(0, tuning.adapter)
    train(base, lora, tuning, [Document.of(example) for example in examples()], token_budget)
    means = tuning.tally.means("")
    return means["loss"], means["mean_token_accuracy"], our_grads(tuning), tuning.adapter


def theirs(model: Any, adapter: Adapter, folder: Path, *, bf16: bool) -> tuple[float, float, Grads]:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    columns = {
        "input_ids": [list(example.tokens) for example in examples()],
        "labels": [
            [token if weight else -100 for token, weight in zip(example.tokens, example.weights, strict=True)]
            for example in examples()
        ],
    }
    config = SFTConfig(output_dir=str(folder), per_device_train_batch_size=4, **PLAIN)
    trainer = SFTTrainer(
        model=peft_model(model, adapter, folder / "adapter"), args=config, train_dataset=Dataset.from_dict(columns),
        processing_class=tokenizer(),
    )  # fmt: skip
    loss, grads = step(trainer, next(iter(trainer.get_train_dataloader())), bf16=bf16)
    return loss, float(trainer._metrics["train"]["mean_token_accuracy"][0]), grads


@pytest.mark.parametrize("family", FAMILIES)
def test_fp32_gradients_are_the_oracles(tmp_path: Path, family: str) -> None:
    adapter = ours(tiny_model(family), 10_000)[-1]
    their_loss, their_accuracy, their_grads = theirs(plain(family), adapter, tmp_path, bf16=False)
    for token_budget in (10_000, 30):
        loss, accuracy, grads, _ = ours(tiny_model(family), token_budget)
        assert loss == pytest.approx(their_loss, rel=1e-6)
        assert accuracy == pytest.approx(their_accuracy, rel=1e-6)
        assert distance(grads, their_grads) <= 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_gradients_are_as_near_as_the_oracles_own(tmp_path: Path, family: str) -> None:
    _, _, grads, adapter = ours(rounded(family), 10_000)
    _, _, exact = theirs(plain(family, bf16=True), adapter, tmp_path / "fp32", bf16=False)
    _, _, autocast = theirs(plain(family, bf16=True), adapter, tmp_path / "bf16", bf16=True)
    assert_as_near_in_bf16(grads, autocast, exact)
