"""Supervised training side by side with TRL's SFTTrainer: same chats, same model, same LoRA, one core.

    python -m benchmarks.supervised                  # five rounds of every configuration, then the table
    python -m benchmarks.supervised --rounds 1 --only trl-best

Each measured run is a process of its own with one thread. All sides see the same examples in the same order; ours goes
through the product's own door (`worker.train.run`). A round measures each side once, one after the other, in alternating
order; ratios are taken within a round, and their median and range over the rounds are told, so that a machine that is busy
for a while slows both sides of a ratio.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

OURS = "tunesmith"
#: What each configuration of TRL changes of its defaults. `best` is the fastest found; see the README beside this file.
TRL: dict[str, dict[str, Any]] = {
    "trl-default": {},
    "trl-default-fp32": {"bf16": False},
    "trl-best": {
        "bf16": False,
        "gradient_checkpointing": False,
        "packing": True,
        "packing_strategy": "bfd",
        "weights": "native",
    },
}
BATCH = 4
#: Steps that are not measured: allocators and caches fill in them.
N_DROPPED = 2
CONTEXT = 1024
SEED = 7
WORDS = 8180
RANK, ALPHA = 16, 32
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }} {% if m['role'] == 'assistant' %}{% generation %}"
    "{{ m['content'] }} <|im_end|>{% endgeneration %}{% else %}{{ m['content'] }} <|im_end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)


def build(folder: Path, n_rows: int) -> None:
    """Write a model with random weights (Qwen3, hidden 384, 6 layers, vocabulary 8,192) and chats of mixed length."""
    import torch
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    special = ["<pad>", "<|im_start|>", "<|im_end|>", "<unk>"]
    words = [*special, "system", "user", "assistant", *(f"w{i}" for i in range(WORDS))]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<|im_end|>", unk_token="<unk>")
    fast.add_special_tokens({"additional_special_tokens": special[1:3]})
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder / "base")
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=8192, hidden_size=384, num_hidden_layers=6, num_attention_heads=6, num_key_value_heads=2, head_dim=64,
        intermediate_size=1536, max_position_embeddings=4096, tie_word_embeddings=True, pad_token_id=0, eos_token_id=2,
        bos_token_id=None,
    )  # fmt: skip
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder / "base")
    randomness = random.Random(SEED)
    rows = [{"messages": chat(randomness)} for _ in range(n_rows)]
    (folder / "blobs").mkdir()
    (folder / "blobs" / "train.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")


def chat(randomness: random.Random) -> list[dict[str, str]]:
    """Return a chat of 24 to 1,000 tokens (median about 195), one to three turns, a quarter of it the assistant's."""
    length = int(min(980.0, max(30.0, randomness.lognormvariate(5.27, 0.85))))
    n_turns = randomness.choice([1, 1, 2, 3])
    said = max(3, length - 4 * (1 + 2 * n_turns))

    def words(n: float) -> str:
        return " ".join(f"w{int(WORDS * randomness.random() ** 2)}" for _ in range(max(1, int(n))))

    messages = [{"role": "system", "content": words(said * 0.2)}]
    for _ in range(n_turns):
        messages.append({"role": "user", "content": words(said * 0.55 / n_turns)})
        messages.append({"role": "assistant", "content": words(said * 0.25 / n_turns)})
    return messages


class Stopwatch:
    """Notes process CPU seconds, wall seconds, and tokens at each optimizer step."""

    def __init__(self) -> None:
        self.born = float(os.environ["BENCH_BORN"])
        self.marks: list[tuple[float, float]] = []
        self.tokens: list[tuple[int, int]] = []

    def mark(self) -> None:
        """One more optimizer step is done."""
        self.marks.append((time.process_time(), time.time()))

    def figures(self) -> dict[str, float]:
        """Return throughput after the dropped steps, time to the first step, and peak memory."""
        (cpu_0, wall_0), (cpu_1, wall_1) = self.marks[N_DROPPED - 1], self.marks[-1]
        measured = self.tokens[N_DROPPED : len(self.marks)]
        seen, trained = sum(t for t, _ in measured), sum(t for _, t in measured)
        return {
            "tokens": seen,
            "trained": trained,
            "tok_per_cpu_s": seen / (cpu_1 - cpu_0),
            "trained_per_cpu_s": trained / (cpu_1 - cpu_0),
            "trained_per_wall_s": trained / (wall_1 - wall_0),
            "first_step_cpu_s": self.marks[0][0],
            "first_step_wall_s": self.marks[0][1] - self.born,
            "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        }


def run_ours(folder: Path, watch: Stopwatch) -> None:
    """Train through the task `train`, as a job's worker does."""
    from tunesmith.blobs.local import LocalBlobs
    from tunesmith.core.channel import Task
    from tunesmith.data.folder import pins
    from tunesmith.data.render import Renderer
    from tunesmith.domain.tasks import TrainSpec
    from tunesmith.worker import train

    class Listener:
        def started(self, **_: Any) -> None: ...

        def metrics(self, *_: Any) -> None:
            watch.mark()

        def checkpoint(self, *_: Any) -> None: ...

        def finished(self, data: dict[str, Any]) -> None: ...

        def message(self, *_: Any, **__: Any) -> None: ...

        def failed(self, *why: Any) -> None:
            raise RuntimeError(why)

        def pause_asked(self) -> bool:
            return False

    blobs = LocalBlobs(folder / "blobs")
    hyperparameters = {"n_epochs": 1, "batch_size": BATCH, "learning_rate_multiplier": 1.0}
    spec = TrainSpec(
        method="supervised", hyperparameters=hyperparameters, method_config={}, seed=SEED, base_path=str(folder / "base"),
        base_name="bench", context_length=CONTEXT, pins=pins(folder / "base"), blobs=blobs.url, training_key="train.jsonl",
        validation_key=None, output_key=f"out/{os.getpid()}", start_adapter=None, resume_key=None, threads=1,
        max_line_bytes=10**6,
    )  # fmt: skip
    listener: Any = Listener()
    train.run(Task("train", "bench", 1, "", "", "", spec.to_mapping()), spec, listener, listener, blobs)
    renderer = Renderer.load(folder / "base")
    for step in batches(ordered_rows(folder)):
        examples = [example for row in step for example in renderer.examples(row["messages"], max_tokens=CONTEXT)]
        watch.tokens.append((sum(len(e.tokens) for e in examples), sum(e.n_trained for e in examples)))


def ordered_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows in the order in which our loop takes them, so that TRL can be handed the same."""
    from tunesmith.engine.order import order

    rows = [json.loads(line) for line in (folder / "blobs" / "train.jsonl").read_text().splitlines()]
    return [rows[i] for i in order(len(rows), seed=SEED, epoch=0)]


def batches(rows: list[Any]) -> list[list[Any]]:
    """Cut rows into steps."""
    return [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]


def run_trl(folder: Path, watch: Stopwatch, changes: dict[str, Any]) -> None:
    """Train with SFTTrainer: its defaults, and what the configuration changes of them."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from tunesmith.lm.load import choose_dtype

    torch.set_num_threads(1)
    settings = dict(changes)
    native = settings.pop("weights", None) == "native"
    if native:
        settings["model_init_kwargs"] = {"dtype": choose_dtype(torch.device("cpu"))}
    rows = ordered_rows(folder)
    config = SFTConfig(
        output_dir=str(folder / f"trl-{os.getpid()}"), use_cpu=True, max_length=CONTEXT, num_train_epochs=1,
        per_device_train_batch_size=1 if settings.get("packing") else BATCH, train_sampling_strategy="sequential",
        assistant_only_loss=True, save_strategy="no", report_to="none", disable_tqdm=True, seed=SEED, learning_rate=1e-3,
        **settings,
    )  # fmt: skip

    class Listener(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            watch.mark()

    trainer = SFTTrainer(
        model=str(folder / "base"), args=config, train_dataset=Dataset.from_list(rows), callbacks=[Listener()],
        processing_class=AutoTokenizer.from_pretrained(folder / "base"),
        peft_config=LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"),
    )  # fmt: skip
    collate = trainer.data_collator

    def counted(examples: list[Any]) -> Any:
        batch = collate(examples)
        mask = batch.get("attention_mask")
        n_tokens = int(mask.sum()) if mask is not None else batch["input_ids"].numel()
        watch.tokens.append((n_tokens, int((batch["labels"] != -100).sum())))
        return batch

    trainer.data_collator = counted
    trainer.train()


def one(name: str, folder: Path) -> None:
    """Measure one run in this process and print its figures as a line of JSON."""
    watch = Stopwatch()
    if name == OURS:
        run_ours(folder, watch)
    else:
        run_trl(folder, watch, TRL[name])
    print("FIGURES " + json.dumps(watch.figures()))


def measured(name: str, folder: Path) -> dict[str, float]:
    """Run a configuration in a fresh process with one thread."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error", "BENCH_BORN": str(time.time()),
    }  # fmt: skip
    command = [sys.executable, "-m", "benchmarks.supervised", "--one", name, "--folder", str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith("FIGURES "):
            return json.loads(line.removeprefix("FIGURES "))
    raise RuntimeError(f"{name} failed:\n{done.stderr[-3000:]}")


def spread(values: list[float], digits: int = 2) -> str:
    """Return median and range."""
    middle = f"{statistics.median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def table(runs: dict[str, list[tuple[dict[str, float], dict[str, float]]]]) -> str:
    """Return the Markdown table: a line for each peer, ours beside it as measured in the same rounds."""
    titles = (
        "peer",
        "rounds",
        "its trained tok / CPU s",
        "ours",
        "ratio, CPU",
        "ratio, wall",
        "peak memory GB",
        "first step CPU s",
    )
    lines = ["| " + " | ".join(titles) + " |", "| " + " | ".join("---" for _ in titles) + " |"]
    for name, rounds in runs.items():
        peers, ours = [peer for peer, _ in rounds], [mine for _, mine in rounds]

        def ratio(key: str, rounds: list[Any] = rounds) -> list[float]:
            return [mine[key] / peer[key] for peer, mine in rounds]

        def both(key: str, digits: int, peers: list[Any] = peers, ours: list[Any] = ours) -> str:
            return f"{spread([o[key] for o in ours], digits)} of {spread([p[key] for p in peers], digits)}"

        cells = [
            name,
            str(len(rounds)),
            spread([peer["trained_per_cpu_s"] for peer in peers], 1),
            spread([mine["trained_per_cpu_s"] for mine in ours], 1),
            f"**{spread(ratio('trained_per_cpu_s'))}x**",
            f"{spread(ratio('trained_per_wall_s'))}x",
            f"{both('peak_gb', 2)} = {spread(ratio('peak_gb'))}x",
            both("first_step_cpu_s", 1),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.supervised")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--only", choices=list(TRL), action="append")
    parser.add_argument("--one", choices=[OURS, *TRL])
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments.one, arguments.folder)
        return 0
    names = arguments.only or list(TRL)
    runs: dict[str, list[tuple[dict[str, float], dict[str, float]]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        build(folder, arguments.steps * BATCH)
        for number in range(arguments.rounds):
            sides = [OURS, *names]
            figures = {side: measured(side, folder) for side in (sides if number % 2 else reversed(sides))}
            for name in names:
                runs[name].append((figures[name], figures[OURS]))
            print(json.dumps({"round": number + 1, **figures}), flush=True)
    print(table(runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
