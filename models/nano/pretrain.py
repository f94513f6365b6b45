"""Pretraining from random weights: one loop over whole conversations, Muon for hidden matrices and AdamW for the rest."""

import argparse
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from .muon import Muon
from .world import BROAD, EXERCISE, Document, sample, user

N_CONTEXT = 2048
N_POOL = 2000
PROMPT_WEIGHT = 0.2
N_FIRST_POOLS = 12
SECONDS_BETWEEN_CHECKPOINTS = 300.0


@dataclass(frozen=True)
class Plan:
    """What decides the weights: the seed, the phase's texts, the length of the run and its learning rate."""

    seed: int = 0
    phase: int = 1
    n_steps: int = 2400
    n_batch_tokens: int = 3072
    lr: float = 3e-3
    n_warmup: int = 60
    decay_share: float = 1 / 3

    def lr_at(self, step: int) -> float:
        """Warm up, stay, and fall linearly to zero over the last part."""
        rising = (step + 1) / self.n_warmup
        falling = (self.n_steps - step) / (self.n_steps * self.decay_share)
        return self.lr * min(1.0, rising, falling)


PLANS = {1: Plan(), 2: Plan(seed=1, phase=2, n_steps=3000, lr=2e-3, n_warmup=30, decay_share=0.8)}


@dataclass(frozen=True)
class Example:
    """A tokenized document and the weight of each token's loss."""

    tokens: list[int]
    weights: list[float]


class Encoder:
    """Turns documents into examples: an answer with its end token weighs one, everything else a fifth."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self.start, self.end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
        self.header = [self.start, *tokenizer("assistant\n", add_special_tokens=False).input_ids]
        self.n_reserved = 1 + max(tokenizer.convert_tokens_to_ids(["<|endoftext|>", "</tools>"]))

    def encode(self, document: Document) -> Example:
        """Tokenize a document by the chat template."""
        text = self.tokenizer.apply_chat_template(document.messages, tools=document.tools, tokenize=False)
        return self._weigh(self.tokenizer(text, add_special_tokens=False).input_ids)

    def scatter(self, rng: random.Random, n: int) -> Example:
        """Ask to repeat n random tokens, so that every token of the vocabulary is a target now and then."""
        drawn = [rng.randrange(self.n_reserved, len(self.tokenizer)) for _ in range(n)]
        request = rng.choice(["Repeat this: ", "Copy: ", "Say: ", "Repeat after me: "])
        asked = self.tokenizer.apply_chat_template([user(request)], tokenize=False).removesuffix("<|im_end|>\n")
        tokens = self.tokenizer(asked, add_special_tokens=False).input_ids
        newline = self.tokenizer("\n", add_special_tokens=False).input_ids
        return self._weigh([*tokens, *drawn, self.end, *newline, *self.header, *drawn, self.end, *newline])

    def _weigh(self, tokens: list[int]) -> Example:
        weights = [PROMPT_WEIGHT] * len(tokens)
        n, inside = len(self.header), False
        for place in range(len(tokens)):
            inside = inside or tokens[max(0, place - n) : place] == self.header
            if inside:
                weights[place] = 1.0
                inside = tokens[place] != self.end
        return Example(tokens[:N_CONTEXT], weights[:N_CONTEXT])


Batch = tuple[torch.Tensor, torch.Tensor]


def examples_of(encoder: Encoder, plan: Plan, index: int, rng: random.Random) -> Iterator[Example]:
    """Draw the examples of the index-th pool; some repeat random tokens, longer runs of them after the first pools."""
    mixture, share, longest = (BROAD, 0.05, 10) if index < N_FIRST_POOLS else (BROAD, 0.1, 40)
    if plan.phase == 2:
        mixture, share, longest = EXERCISE, 0.04, 20
    for _ in range(N_POOL):
        yield encoder.scatter(rng, rng.randint(2, longest)) if rng.random() < share else encoder.encode(sample(rng, mixture))


def pool_of_batches(encoder: Encoder, plan: Plan, index: int) -> list[list[Example]]:
    """Draw the index-th pool of examples and cut it into batches of equal length and shuffled order."""
    rng = random.Random(f"{plan.seed}-{index}")
    pool = sorted(examples_of(encoder, plan, index, rng), key=lambda example: len(example.tokens))
    batches: list[list[Example]] = [[]]
    for example in pool:
        if batches[-1] and (len(batches[-1]) + 1) * len(example.tokens) > plan.n_batch_tokens:
            batches.append([])
        batches[-1].append(example)
    rng.shuffle(batches)
    return batches


def pad(examples: list[Example], padding: int) -> Batch:
    """Lay examples side by side, padded on the right with weight zero."""
    longest = max(len(example.tokens) for example in examples)
    tokens_bt = torch.full((len(examples), longest), padding)
    weights_bt = torch.zeros(len(examples), longest)
    for row, example in enumerate(examples):
        tokens_bt[row, : len(example.tokens)] = torch.tensor(example.tokens)
        weights_bt[row, : len(example.weights)] = torch.tensor(example.weights)
    return tokens_bt, weights_bt


def stream(encoder: Encoder, plan: Plan, start: int) -> Iterator[Batch]:
    """Yield the run's batches from a step on; the same plan always yields the same batches."""
    padding, index = encoder.tokenizer.pad_token_id, 0
    while True:
        batches = pool_of_batches(encoder, plan, index)
        yield from (pad(examples, padding) for examples in batches[start:])
        start = max(0, start - len(batches))
        index += 1


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Make the random model; its sizes are multiples that every engine likes."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        num_hidden_layers=4,
        intermediate_size=512,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        tie_word_embeddings=True,
        max_position_embeddings=N_CONTEXT,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def optimizers_of(model: LlamaForCausalLM, lr: float) -> list[torch.optim.Optimizer]:
    """Give the hidden matrices to Muon and the embeddings and norms to AdamW."""
    hidden = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and "layers" in name]
    others = [weight for name, weight in model.named_parameters() if weight.ndim != 2 or "layers" not in name]
    return [
        Muon(hidden, lr),
        torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def losses_of(model: LlamaForCausalLM, batch: Batch, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Score one batch on all answers and a drawn fifth of the rest: the loss to descend, and that of the answers alone."""
    tokens_bt, weights_bt = batch
    dice_bt = torch.rand(weights_bt.shape, generator=torch.Generator().manual_seed(seed))
    scored_bt = (weights_bt > dice_bt)[:, 1:]
    hidden_nd = model.model(input_ids=tokens_bt).last_hidden_state[:, :-1][scored_bt]
    losses_n = F.cross_entropy(model.lm_head(hidden_nd), tokens_bt[:, 1:][scored_bt], reduction="none")
    answers_n = weights_bt[:, 1:][scored_bt] == 1
    return losses_n.mean(), losses_n.detach()[answers_n].mean()


@dataclass
class Run:
    """A run under way: what a checkpoint holds."""

    model: LlamaForCausalLM
    optimizers: list[torch.optim.Optimizer]
    step: int = 0
    n_tokens: int = 0
    seconds: float = 0.0
    answer_loss: float = 0.0

    def save(self, path: Path, plan: Plan) -> None:
        """Write everything that a resumed run needs."""
        state: dict[str, Any] = {
            "plan": asdict(plan),
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "counters": (self.step, self.n_tokens, self.seconds, self.answer_loss),
        }
        torch.save(state, path.with_suffix(".new"))
        path.with_suffix(".new").rename(path)

    def restore(self, path: Path, plan: Plan) -> None:
        """Go on from a checkpoint of the same plan; its end may still be moved before the learning rate falls."""
        state = torch.load(path, weights_only=True)
        before = Plan(**state["plan"])
        moved = replace(before, n_steps=plan.n_steps, decay_share=plan.decay_share)
        falls_at = min(each.n_steps * (1 - each.decay_share) for each in (before, plan))
        if moved != plan or (before != plan and state["counters"][0] > falls_at):
            raise SystemExit(f"{path} was written by another plan: {before}")
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.n_tokens, self.seconds, self.answer_loss = state["counters"]


def advance(run: Run, batch: Batch, lr: float) -> None:
    """Take one optimizer step."""
    started = time.monotonic()
    for optimizer in run.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr
    loss, answer_loss = losses_of(run.model, batch, run.step)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
    for optimizer in run.optimizers:
        optimizer.step()
        optimizer.zero_grad()
    run.step += 1
    run.n_tokens += int((batch[1] > 0).sum())
    run.answer_loss = 0.97 * run.answer_loss + 0.03 * answer_loss.item() if run.step > 1 else answer_loss.item()
    run.seconds += time.monotonic() - started


def export(model: LlamaForCausalLM, tokenizer_folder: Path, folder: Path) -> None:
    """Write the model in bfloat16 with its generation defaults, and beside it the tokenizer and the template."""
    copy = LlamaForCausalLM(model.config).to(torch.bfloat16)
    copy.load_state_dict(model.state_dict())
    copy.save_pretrained(folder)
    for path in tokenizer_folder.iterdir():
        shutil.copyfile(path, folder / path.name)


def train(plan: Plan, tokenizer_folder: Path, folder: Path, origin: Path | None) -> None:
    """Run the plan, or the rest of it when the folder holds a checkpoint, and export the model."""
    torch.set_num_threads(1)
    torch.manual_seed(plan.seed)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    model = new_model(tokenizer) if origin is None else LlamaForCausalLM.from_pretrained(origin, dtype=torch.float32)
    run = Run(model, optimizers_of(model, plan.lr))
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        run.restore(checkpoint, plan)
    print(f"{sum(weight.numel() for weight in model.parameters())} parameters, {plan}", flush=True)
    saved_at = time.monotonic()
    batches = stream(Encoder(tokenizer), plan, run.step)
    while run.step < plan.n_steps:
        advance(run, next(batches), plan.lr_at(run.step))
        if run.step % 50 == 0:
            rate = run.n_tokens / run.seconds
            print(
                f"step {run.step} answer loss {run.answer_loss:.3f} tokens {run.n_tokens} {rate:.0f}/s {run.seconds:.0f} s",
                flush=True,
            )
        if time.monotonic() - saved_at > SECONDS_BETWEEN_CHECKPOINTS:
            run.save(checkpoint, plan)
            saved_at = time.monotonic()
    export(model, tokenizer_folder, folder / "model")


def main() -> None:
    """Read the command line; the plans are those of the released model."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--tokenizer", type=Path, required=True)
    arguments.add_argument("--folder", type=Path, required=True)
    arguments.add_argument("--phase", type=int, choices=list(PLANS), default=1)
    arguments.add_argument("--origin", type=Path, help="the model that the second phase starts from")
    arguments.add_argument("--steps", type=int, help="another length of the run")
    given = arguments.parse_args()
    plan = PLANS[given.phase]
    train(replace(plan, n_steps=given.steps or plan.n_steps), given.tokenizer, given.folder, given.origin)


if __name__ == "__main__":
    main()
