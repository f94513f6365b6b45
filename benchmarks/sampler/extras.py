"""What a schema costs, how long an adapter takes to load, and how far apart trainer, server and merged model are."""

import hashlib
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.sampler import models
from benchmarks.sampler.sides import Ours, adapter_of
from tunesmith.lm import attention
from tunesmith.lm.adapter_file import WEIGHTS, to_files
from tunesmith.lm.lora import Span
from tunesmith.lm.score import Packed, score
from tunesmith.sampler.grammar import Grammars
from tunesmith.sampler.request import Request

#: Answers that go on for as long as they may.
SCHEMA = (
    '{"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}, "n": {"type": "integer"}}, '
    '"required": ["name", "n"], "additionalProperties": false}, "minItems": 100}'
)
N_ROWS, N_TOKENS = 8, 96


def show(n_rounds: int) -> None:
    """Measure and print a line for each."""
    attention.register()
    ours = Ours(models.make("nano", torch.bfloat16), 0)
    _schema(ours, n_rounds)
    ours.stop()
    for name in ("nano", "half-billion"):
        _cold_load(name, n_rounds)
    _logprobs()


def _schema(ours: Ours, n_rounds: int) -> None:
    """Tell what it costs to hold rows to a schema, per sampled token: an answer may end early."""
    grammars = Grammars(models.NANO / "tokenizer.json", ours.base.head.weight_VC.shape[0])
    from llguidance import LLMatcher

    began = time.process_time()
    grammar = LLMatcher.grammar_from_json_schema(SCHEMA)
    grammars.matcher(grammar, frozenset({2}))
    prepared = time.process_time() - began
    costs: dict[bool, list[float]] = {False: [], True: []}
    for number in range(2 * n_rounds + 2):
        bound = bool(number % 2)
        prompts = torch.randint(10, 2000, (N_ROWS, 64), generator=torch.Generator().manual_seed(number // 2)).tolist()
        requests = [
            Request(prompt, print, max_tokens=N_TOKENS, seed=row, stop_ids=frozenset({2}) if bound else frozenset(),
                    matcher=grammars.matcher(grammar, frozenset({2})) if bound else None)
            for row, prompt in enumerate(prompts)
        ]  # fmt: skip
        began = time.process_time()
        n_tokens = ours.ask(requests)
        if number > 1:
            costs[bound].append((time.process_time() - began) / n_tokens)
    ratios = [with_schema / free - 1 for free, with_schema in zip(costs[False], costs[True], strict=True)]
    print(
        f"JSON schema, {N_ROWS} rows: {100 * statistics.median(ratios):+.1f} % processor time a token "
        f"({100 * min(ratios):+.1f} to {100 * max(ratios):+.1f}); tokenizer and schema, once: {1000 * prepared:.0f} ms"
    )


def _cold_load(name: str, n_rounds: int) -> None:
    """Tell how long an adapter takes from its files to the first pass that can use it."""
    ours = Ours(models.make(name, torch.bfloat16), 0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for file, content in to_files(adapter_of(ours.lora, 1), base_name=name).items():
            (folder / file).write_bytes(content)
        sha256 = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
        took: list[float] = []
        for number in range(n_rounds + 1):
            began = time.perf_counter()
            ours.engine.adapters.slot(f"{number}", folder, sha256)
            took.append(1000 * (time.perf_counter() - began))
        size = (folder / WEIGHTS).stat().st_size / 1e6
    ours.stop()
    print(f"adapter of {size:.1f} MB, cold load, {name}: {statistics.median(took):.1f} ms ({min(took):.1f}-{max(took):.1f})")


def _logprobs() -> None:
    """Tell how far apart the log-probabilities of sampled tokens are in fp32: server, trainer, and weights merged."""
    ours = Ours(models.make("nano", torch.float32), 1)
    prompts = torch.randint(10, 2000, (4, 100), generator=torch.Generator().manual_seed(5)).tolist()
    told: list[list[Any]] = [[] for _ in prompts]
    requests = [Request(prompt, print, max_tokens=64, seed=row, slot=0) for row, prompt in enumerate(prompts)]
    for row, request in enumerate(requests):
        request.emit = told[row].extend  # type: ignore[assignment]  # no request fails here
    ours.engine.stop()
    ours.engine.work_off(requests, stop=lambda: False)
    ours.base.model.set_attn_implementation(attention.NAME)  # type: ignore[operator]  # a transformers model
    merged = models.make("nano", torch.float32)
    adapter = ours.lora.route.slots[0]
    for path, pair in adapter.pairs.items():
        merged.get_submodule(path).weight.data += adapter.scale * (pair.b_OR @ pair.a_RI).detach()
    gaps: dict[str, float] = {"trainer": 0.0, "merged": 0.0}
    with torch.no_grad():
        for prompt, tokens in zip(prompts, told, strict=True):
            row = torch.tensor(prompt + [token.token for token in tokens])
            asked = torch.arange(len(prompt) - 1, len(row) - 1)
            served = torch.tensor([token.logprob for token in tokens])
            packed = Packed(row, torch.arange(len(row)), (len(row),), (Span(0, 0, len(row)),), asked, row[asked + 1])
            trained = score(ours.base, ours.lora, packed).logp_N
            merged_logp = torch.log_softmax(merged(row[None]).logits[0, asked], -1).gather(1, row[asked + 1, None])[:, 0]
            for name, other in (("trainer", trained), ("merged", merged_logp)):
                gaps[name] = max(gaps[name], float((other - served).abs().max()))
    print("log-probabilities in fp32, most: " + ", ".join(f"server to {name} {gap:.1e}" for name, gap in gaps.items()))
