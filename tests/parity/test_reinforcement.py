"""Rewards: TRL's `GRPOTrainer` on the very samples that our own step drew, with their rewards.

Of ours everything is run as in a training: the sampler draws, the step compares and leaves out, the engine shares prompts.
TRL is handed the samples as its rollouts and computes advantages and loss itself (`dapo`: a mean over all tokens).
"""

from array import array
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
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
    words,
)
from tunesmith import bases
from tunesmith.blobs.local import LocalBlobs
from tunesmith.data.prompts import PromptRow
from tunesmith.data.render import Renderer
from tunesmith.domain.ports import Ask, Drawn
from tunesmith.engine.batch import micro_batches
from tunesmith.engine.document import Document
from tunesmith.engine.ranks import ALONE
from tunesmith.engine.rollouts import Plan, Rollouts
from tunesmith.engine.run import Bench, Run, Taken
from tunesmith.graders.base import Grade, Sample
from tunesmith.graders.string_check import StringCheck
from tunesmith.lm.load import Base, wrap
from tunesmith.lm.lora import LoraModel
from tunesmith.methods.reinforcement import CLIP, Reinforcement
from tunesmith.sampler.direct import DirectSampler
from tunesmith.worker.further import Silent

pytestmark = pytest.mark.filterwarnings("ignore")

N_GROUP = 4
#: Whose tokenizer and template are used.
NANO = Path(bases.__file__).parent / "tunesmith-nano"
VOCABULARY = 2048
#: What is asked; the second has the same reward whatever the answer.
ASKED = (
    "Name a colour that is seen in the sky at dusk, and nothing else.",
    "Is it raining? Answer with yes or no, please.",
    "Count to three, slowly, then stop, then count back to one again, if you do not mind; and say why you stopped.",
    "Why?",
)
FLAT = 1
Key = tuple[tuple[int, ...], tuple[int, ...]]


def reward(asked: str, text: str) -> float:
    return 0.5 if asked == ASKED[FLAT] else sum(ord(letter) % 7 for letter in text) / 10


class Recorder:
    """The sampler, and what it drew."""

    def __init__(self, sampler: DirectSampler) -> None:
        self.sampler = sampler
        self.drawn: list[tuple[list[int], Drawn]] = []

    def draw(self, asks: list[Ask], on_drawn: Callable[[Drawn], None], *, stop: Callable[[], bool]) -> bool:
        def keep(one: Drawn) -> None:
            self.drawn.append((asks[one.ask].prompt, one))
            on_drawn(one)

        return self.sampler.draw(asks, keep, stop=stop)


class NoPause:
    def pause_asked(self) -> bool:
        return False


class Ours:
    """One step of reinforcement, from prompts to gradients."""

    def __init__(self, model: Any, folder: Path, *, ungraded: Callable[[str, str], bool]) -> None:
        self.base: Base = wrap(model)
        self.lora = LoraModel(model)
        self.policy = start(self.lora)
        self.lora.place(0, self.policy)
        renderer = Renderer.load(NANO)
        stop_ids = frozenset({*renderer.stop_ids, *range(100, 400)})
        sampler = Recorder(
            DirectSampler(self.base, self.lora, slot=0, start_slot=None, context_length=128, stop_ids=stop_ids, folder=NANO)
        )
        self.rewards: dict[Key, float | None] = {}
        rows = [
            PromptRow(i + 1, i + 1, [{"role": "user", "content": asked}], item={"asked": asked})
            for i, asked in enumerate(ASKED)
        ]

        def grade(sample: Sample) -> Future[Grade]:
            done: Future[Grade] = Future()
            prompt, drawn = sampler.drawn[-1]
            asked, text = sample.item["asked"], sample.sample["output_text"]
            errors: Any = {"other_error": "none"} if ungraded(asked, text) else {}
            score = None if errors else reward(asked, text)
            self.rewards[tuple(prompt), tuple(drawn.tokens)] = score
            done.set_result(Grade(score, errors))
            return done

        source = Rollouts(
            rows, rows, plan=Plan(N_GROUP, 1, 1, 128, 24), renderer=renderer, sampler=sampler,
            grader=StringCheck(type="string_check", name="g", input="", reference="", operation="eq"), grade=grade,
            blobs=LocalBlobs(folder / "blobs"),
        )  # fmt: skip
        settings: Any = {
            "n_epochs": 1,
            "batch_size": len(rows),
            "learning_rate_multiplier": 1.0,
            "seed": 1,
            "output_key": "o",
        }
        run = Run(method=Reinforcement(), recipe={}, token_budget=10_000, **settings)
        tuning = tuning_of(Reinforcement(), self.policy)
        source.attach(Bench(run, self.base, self.lora, tuning, None, 1, Silent(), NoPause(), ALONE), {})
        with torch.no_grad():
            self.taken: Taken = source.take(1)
        self.drawn = [(tuple(prompt), tuple(one.tokens)) for prompt, one in sampler.drawn]
        #: By prompt and answer; nought for those that are left out.
        self.advantages = dict.fromkeys(self.drawn, 0.0) | {_key(doc): doc.weights[0] for doc in self.taken.documents}

    def grads(self, token_budget: int, documents: list[Document]) -> tuple[float, Grads]:
        """Return the step's loss and gradients."""
        for parameter in self.policy.parameters():
            parameter.grad = None
        tuning = tuning_of(Reinforcement(), self.policy)
        train(self.base, self.lora, tuning, documents, token_budget)
        return tuning.tally.total / self.count, our_grads(tuning, n_idle=self.taken.n_idle)

    @property
    def count(self) -> int:
        """What the step's sum is divided by."""
        return sum(len(doc.trained) for doc in self.taken.documents) + self.taken.n_idle


def _key(document: Document) -> Key:
    tokens, first = tuple(document.tokens), document.trained[0]
    return tokens[:first], tokens[first:]


def theirs(model: Any, ours: Ours, folder: Path, *, bf16: bool = False) -> tuple[float, dict[Key, float], Grads]:
    """Return the loss, the advantages and the gradients."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    prompts = list(dict.fromkeys(prompt for prompt, _ in ours.drawn))
    named = {words([3 + i]): prompt for i, prompt in enumerate(prompts)}
    handed: list[Key] = []

    def rollouts(asked: list[str], _trainer: Any) -> dict[str, list[Any]]:
        left = {prompt: [answer for one, answer in ours.drawn if one == prompt] for prompt in prompts}
        handed.extend((named[text], left[named[text]].pop()) for text in asked)
        return {
            "prompt_ids": [list(prompt) for prompt, _ in handed],
            "completion_ids": [list(answer) for _, answer in handed],
            "logprobs": [[0.0] * len(answer) for _, answer in handed],
        }

    config = GRPOConfig(
        output_dir=str(folder), per_device_train_batch_size=len(ours.drawn), num_generations=N_GROUP, beta=0.0,
        loss_type="dapo", scale_rewards="group", num_iterations=1, temperature=1.0, **PLAIN,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=peft_model(model, ours.policy, folder / "adapter"), args=config, processing_class=tokenizer(),
        reward_funcs=lambda **_: [ours.rewards[key] for key in handed],
        train_dataset=Dataset.from_list([{"prompt": text} for text in named]), rollout_func=rollouts,
    )  # fmt: skip
    loss, grads = step(trainer, next(iter(trainer.get_train_dataloader())), bf16=bf16)
    assert sorted(handed) == sorted(ours.drawn)
    return loss, dict(zip(handed, trainer._logs["advantages"], strict=True)), grads


@pytest.fixture
def make_ours(tmp_path: Path) -> Callable[..., Ours]:
    def make(model: Any, ungraded: Callable[[str, str], bool] = lambda _asked, _text: False) -> Ours:
        return Ours(model, tmp_path, ungraded=ungraded)

    return make


@pytest.mark.parametrize("family", FAMILIES)
def test_fp32_gradients_are_the_oracles(make_ours: Callable[..., Ours], tmp_path: Path, family: str) -> None:
    ours = make_ours(tiny_model(family, vocab_size=VOCABULARY))
    loss, advantages, grads = theirs(plain(family, vocab_size=VOCABULARY), ours, tmp_path)
    assert ours.advantages == pytest.approx(advantages, rel=1e-5, abs=1e-6)
    # The group that teaches nothing is left out of the pass, and counts in the division.
    assert len(ours.taken.documents) <= N_GROUP * (len(ASKED) - 1)
    assert ours.taken.n_idle > 0
    (whole,) = micro_batches(ours.taken.documents, token_budget=10_000)
    assert any(isinstance(length, tuple) for length in whole.lengths), "no prompt is shared"
    for token_budget in (10_000, 80):
        our_loss, our = ours.grads(token_budget, ours.taken.documents)
        assert our_loss == pytest.approx(loss, abs=1e-6)
        assert distance(our, grads) <= 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_gradients_are_as_near_as_the_oracles_own(make_ours: Callable[..., Ours], tmp_path: Path, family: str) -> None:
    ours = make_ours(rounded(family, vocab_size=VOCABULARY))
    _, grads = ours.grads(10_000, ours.taken.documents)
    model = {"vocab_size": VOCABULARY, "bf16": True}
    _, _, exact = theirs(plain(family, **model), ours, tmp_path / "fp32")
    _, _, autocast = theirs(plain(family, **model), ours, tmp_path / "bf16", bf16=True)
    assert_as_near_in_bf16(grads, autocast, exact)


def test_a_sample_without_a_grade_takes_no_part(make_ours: Callable[..., Ours], tmp_path: Path) -> None:
    """Advantages are the oracle's; its division counts such a sample's tokens, ours does not."""
    lost: list[str] = []

    def ungraded(asked: str, text: str) -> bool:
        if asked == ASKED[-1] and not lost:
            lost.append(text)
        return asked == ASKED[-1] and text in lost

    ours = make_ours(tiny_model("llama", vocab_size=VOCABULARY), ungraded)
    _, advantages, grads = theirs(plain("llama", vocab_size=VOCABULARY), ours, tmp_path)
    assert None in ours.rewards.values()
    assert ours.advantages == pytest.approx(advantages, rel=1e-5, abs=1e-6)
    n_tokens = sum(len(answer) for _, answer in ours.drawn)
    assert ours.count < n_tokens
    _, our = ours.grads(10_000, ours.taken.documents)
    assert distance({name: grad * ours.count / n_tokens for name, grad in our.items()}, grads) <= 1e-5


def test_where_the_sampler_said_otherwise_the_clip_is_the_definition_written_out(
    make_ours: Callable[..., Ours], tmp_path: Path
) -> None:
    ours = make_ours(tiny_model("llama", vocab_size=VOCABULARY))
    generator = torch.Generator().manual_seed(1)
    documents: list[Document] = []
    for document in ours.taken.documents:
        assert document.before is not None
        off = torch.randn(len(document.before), generator=generator) * 0.3
        documents.append(replace(document, before=array("f", (torch.tensor(document.before) + off).tolist())))
    model = peft_model(plain("llama", vocab_size=VOCABULARY), ours.policy, tmp_path / "adapter")
    total = torch.zeros(())
    n_clipped = 0
    for document in documents:
        tokens, first = torch.tensor(document.tokens), document.trained[0]
        logits = model(input_ids=tokens[None]).logits[0, first - 1 : -1]
        logp = torch.log_softmax(logits, -1).gather(1, tokens[first:, None])[:, 0]
        for ratio in torch.exp(logp - torch.tensor(document.before)):
            advantage = document.weights[0]
            # A ratio that has gone as far as it may in the direction of the advantage has no slope.
            clipped = ratio > 1 + CLIP if advantage > 0 else ratio < 1 - CLIP
            n_clipped += int(clipped)
            bound = 1 + CLIP if advantage > 0 else 1 - CLIP
            total = total - (bound * advantage if clipped else ratio * advantage)
    assert 0 < n_clipped < sum(len(document.trained) for document in documents)
    (total / ours.count).backward()
    exact = {
        name.removeprefix("base_model.model.").removesuffix(".default.weight"): parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    loss, our = ours.grads(80, documents)
    assert loss == pytest.approx(float(total / ours.count), rel=1e-5, abs=1e-6)
    assert distance(our, exact) <= 1e-5
