"""A tiny base with random weights, documents of random tokens, and ports that remember what they were told."""

import asyncio
import json
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from transformers import AutoModelForCausalLM, Qwen3Config
from transformers.utils import logging

from tunesmith.blobs.local import LocalBlobs
from tunesmith.core.clock import SystemClock
from tunesmith.data.prompts import PromptRow
from tunesmith.data.render import Example, Renderer
from tunesmith.engine.document import Document
from tunesmith.engine.loop import SLOT, Outcome, train
from tunesmith.engine.rollouts import Plan, Rollouts
from tunesmith.engine.run import Run
from tunesmith.graders.base import Grade, Sample, Tools
from tunesmith.graders.grader import Grader
from tunesmith.lm import attention
from tunesmith.lm.load import Base, load, wrap
from tunesmith.lm.lora import LoraModel
from tunesmith.methods.reinforcement import Reinforcement
from tunesmith.methods.supervised import Supervised
from tunesmith.sampler.direct import DirectSampler

N_VOCAB = 64
#: Of the base that samples.
N_CONTEXT = 128
LIKENESS = {
    "type": "text_similarity", "name": "likeness", "input": "{{ sample.output_text }}", "reference": "{{ item.answer }}",
    "evaluation_metric": "fuzzy_match",
}  # fmt: skip


class Told:
    """A reporter and a control: keeps what was reported, asks for a pause once `pause_after` steps were reported."""

    def __init__(self, pause_after: int | None = None) -> None:
        self.pause_after = pause_after
        self.start: tuple[int, int] | None = None
        self.steps: dict[int, dict[str, Any]] = {}
        self.checkpoints: list[tuple[int, str, str, dict[str, Any]]] = []
        self.messages: list[str] = []
        self.keys: list[str | None] = []

    def started(self, *, total_steps: int, step: int) -> None:
        self.start = (step, total_steps)

    def metrics(self, step: int, total_steps: int, values: dict[str, Any]) -> None:
        self.steps[step] = values

    def message(self, text: str, *, level: str = "info", key: str | None = None) -> None:
        self.messages.append(text)
        self.keys.append(key)

    def checkpoint(self, step: int, key: str, sha256: str, metrics: dict[str, Any]) -> None:
        self.checkpoints.append((step, key, sha256, metrics))

    def pause_asked(self) -> bool:
        return self.pause_after is not None and len(self.steps) >= self.pause_after


def make_document(length: int, trained: range, seed: int) -> Document:
    randomness = random.Random(seed)
    tokens = tuple(randomness.randrange(N_VOCAB) for _ in range(length))
    return Document.of(Example(tokens, tuple(float(i in trained) for i in range(length)), truncated=False))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def document() -> Callable[[int, range, int], Document]:
    return make_document


@pytest.fixture
def documents() -> list[list[Document]]:
    """Seven rows; the third gives two documents."""
    rows = [[make_document(6 + 3 * i, range(3, 6 + 3 * i), seed=i)] for i in range(7)]
    rows[2].append(make_document(5, range(2, 4), seed=99))
    return rows


@pytest.fixture
def make_base() -> Callable[..., Base]:
    """Return a function that makes the same tiny base each time."""

    def make(dtype: torch.dtype = torch.float32) -> Base:
        attention.register()
        logging.set_verbosity_error()
        config = Qwen3Config(
            vocab_size=N_VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=8, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        )  # fmt: skip
        model: Any = AutoModelForCausalLM.from_config(config, attn_implementation=attention.NAME, dtype=torch.float32)
        generator = torch.Generator().manual_seed(5)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.data.normal_(0, 0.2, generator=generator)
        model.tie_weights()
        return wrap(model.to(dtype))

    return make


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs")


@pytest.fixture
def told() -> type[Told]:
    return Told


@pytest.fixture
def plan() -> Callable[..., Run]:
    """Return a function that makes a run over seven rows: 2 steps of 4 rows an epoch, 3 epochs."""

    def make(**changes: Any) -> Run:
        settings: dict[str, Any] = {
            "method": Supervised(), "n_epochs": 3, "batch_size": 4, "learning_rate_multiplier": 5.0, "seed": 1,
            "output_key": "jobs/j/attempts/1", "recipe": {"base": "tiny", "pins": {"weights": "w"}, "seed": 1},
            "token_budget": 40,
        }  # fmt: skip
        return Run(**(settings | changes))

    return make


def make_row(line: int, **item: Any) -> PromptRow:
    asked = [{"role": "user", "content": f"number {line}"}]
    return PromptRow(line, line, asked, None, None, item or {"answer": "aeiou"})


class Rig:
    """A base folder, a store, and runs on them."""

    def __init__(self, folder: Path, blobs: LocalBlobs, pool: ThreadPoolExecutor, told: type) -> None:
        self.folder, self.blobs, self.told = folder, blobs, told
        self._pool = pool
        self._tools = Tools(SystemClock())
        self.renderer = Renderer.load(folder)
        #: What every grader was told.
        self.samples: list[Sample] = []

    def grade(self, sample: Sample, grader: Any) -> Grade:
        self.samples.append(sample)
        return asyncio.run(grader.grade(sample, self._tools))

    def go(
        self,
        run: Run,
        news: Any,
        *,
        grader: Any = LIKENESS,
        rows: list[PromptRow] | None = None,
        valid: list[PromptRow] | None = None,
        grading: "Callable[[Sample, Any], Grade] | None" = None,
        **plan: Any,
    ) -> Outcome:
        base = load(self.folder)
        lora = LoraModel(base.model)
        parsed: Any = TypeAdapter(Grader).validate_python(grader)
        settings: dict[str, Any] = {
            "group_size": 4, "eval_interval": 2, "eval_samples": 2, "context_length": N_CONTEXT, "max_tokens": 6,
        }  # fmt: skip
        source = Rollouts(
            [make_row(n) for n in range(1, 5)] if rows is None else rows,
            [make_row(n) for n in range(8, 10)] if valid is None else valid,
            plan=Plan(
                **(
                    settings
                    | plan
                    | ({"grammar": lambda *_: plan["grammar"]} if isinstance(plan.get("grammar"), str) else {})
                )
            ),
            renderer=self.renderer,
            sampler=DirectSampler(
                base,
                lora,
                slot=SLOT,
                context_length=N_CONTEXT,
                stop_ids=self.renderer.stop_ids,
                folder=self.folder,
                start_slot=None,
            ),
            grader=parsed,
            grade=lambda sample: self._pool.submit(grading or self.grade, sample, parsed),
            blobs=self.blobs,
        )
        return train(run, base, lora=lora, source=source, blobs=self.blobs, reporter=news, control=news)

    def records(self, step: int, *attempts: str) -> list[dict[str, Any]]:
        """Return the rollouts of a step; of several attempts the last one that has some counts."""
        found = [path for key in attempts if (path := self.blobs.path(f"{key}/rollouts/{step:06d}.jsonl")).is_file()]
        return [json.loads(line) for line in found[-1].read_text().splitlines()]


@pytest.fixture
def rig(base_folder: Callable[[str], Path], blobs: LocalBlobs, told: type) -> Iterator[Rig]:
    with ThreadPoolExecutor(4) as pool:
        yield Rig(base_folder("qwen3"), blobs, pool, told)


@pytest.fixture
def prompts_plan(plan: Callable[..., Run]) -> Callable[..., Run]:
    """Return a function that makes a run over four prompts: 2 steps of 2 prompts an epoch, 2 epochs."""
    settings: dict[str, Any] = {"method": Reinforcement(), "n_epochs": 2, "batch_size": 2, "token_budget": 400}
    return lambda **changes: plan(**(settings | changes))
