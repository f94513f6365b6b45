"""TRL's side of a work: its trainer of the method, at its defaults and at what a configuration changes of them."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.methods import ours
from benchmarks.methods.shapes import SEED, read_rows
from benchmarks.methods.watch import Stopwatch
from benchmarks.methods.works import ALPHA, CONTEXT, GROUP, N_MOST_SAMPLED, RANK, TRAIN, Work


def run(work: Work, folder: Path, watch: Stopwatch, changes: dict[str, Any]) -> None:
    """Train to the end."""
    import torch
    from transformers import TrainerCallback

    torch.set_num_threads(1)

    class Listener(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            watch.mark()

    n_each = GROUP if work.method == "reinforcement" else 1
    settings: dict[str, Any] = {
        "output_dir": str(folder / f"trl-{os.getpid()}"), "use_cpu": True, "num_train_epochs": work.n_epochs,
        "per_device_train_batch_size": work.batch * n_each, "save_strategy": "no", "report_to": "none",
        "disable_tqdm": True, "seed": SEED, "learning_rate": 1e-3,
    }  # fmt: skip
    settings |= changes
    if settings.pop("weights", None) == "native":
        from tunesmith.lm.load import choose_dtype

        settings["model_init_kwargs"] = {"dtype": choose_dtype(torch.device("cpu"))}
    sides = {"supervised": _supervised, "dpo": _dpo, "reinforcement": _reinforcement}
    sides[work.method](folder, watch, settings, Listener())
    if work.method == "dpo":
        watch.worth = [float(work.batch)] * len(watch.marks)


def _lora() -> Any:
    from peft import LoraConfig

    return LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder / "base")


def _supervised(folder: Path, watch: Stopwatch, settings: dict[str, Any], listener: Any) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    if settings.get("packing"):
        settings["per_device_train_batch_size"] = 1
    settings.setdefault("max_length", CONTEXT)
    n_parts = int(settings.get("gradient_accumulation_steps", 1))
    trainer = SFTTrainer(
        model=str(folder / "base"),
        args=SFTConfig(assistant_only_loss=True, train_sampling_strategy="sequential", **settings),
        train_dataset=Dataset.from_list(ours.ordered_rows(folder)), callbacks=[listener],
        processing_class=_tokenizer(folder), peft_config=_lora(),
    )  # fmt: skip
    collate = trainer.data_collator
    parts: list[int] = []

    def counted(examples: list[Any]) -> Any:
        batch = collate(examples)
        parts.append(int((batch["labels"] != -100).sum()))
        return batch

    trainer.data_collator = counted
    trainer.train()
    watch.worth = [float(sum(parts[i : i + n_parts])) for i in range(0, len(parts), n_parts)]


def _dpo(folder: Path, watch: Stopwatch, settings: dict[str, Any], listener: Any) -> None:
    from datasets import Dataset
    from torch.utils.data import Sampler
    from trl import DPOConfig, DPOTrainer

    class InOurOrder(Sampler[int]):
        def __init__(self, n_rows: int) -> None:
            self.n_rows, self.epoch = n_rows, 0

        def __len__(self) -> int:
            return self.n_rows

        def __iter__(self) -> Iterator[int]:
            epoch, self.epoch = self.epoch, self.epoch + 1
            yield from ours.order(self.n_rows, epoch)

    class Trainer(DPOTrainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return InOurOrder(len(train_dataset or self.train_dataset))

        def _precompute_ref_logps(self, *given: Any, **named: Any) -> Any:
            cpu, wall = time.process_time(), time.time()
            done = super()._precompute_ref_logps(*given, **named)
            watch.before = (time.process_time() - cpu, time.time() - wall)
            return done

    rows = [
        {"prompt": row["input"]["messages"], "chosen": row["preferred_output"], "rejected": row["non_preferred_output"]}
        for row in read_rows(folder / "blobs" / TRAIN)
    ]
    Trainer(
        model=str(folder / "base"), args=DPOConfig(max_length=CONTEXT, beta=0.1, **settings),
        train_dataset=Dataset.from_list(rows), callbacks=[listener], processing_class=_tokenizer(folder),
        peft_config=_lora(),
    ).train()  # fmt: skip


def _reinforcement(folder: Path, watch: Stopwatch, settings: dict[str, Any], listener: Any) -> None:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from tunesmith.graders.metrics import fuzzy_match

    def reward(completions: list[Any], answer: list[str], completion_ids: list[Any], **_: Any) -> list[float]:
        watch.worth.append(float(sum(map(len, completion_ids))))
        texts = [completion[0]["content"] for completion in completions]
        return [fuzzy_match(text, reference) for text, reference in zip(texts, answer, strict=True)]

    rows = [{"prompt": row["messages"], "answer": row["answer"]} for row in ours.ordered_rows(folder)]
    GRPOTrainer(
        model=str(folder / "base"), reward_funcs=reward,
        args=GRPOConfig(
            num_generations=GROUP, max_completion_length=N_MOST_SAMPLED, shuffle_dataset=False, **settings
        ),
        train_dataset=Dataset.from_list(rows), callbacks=[listener], processing_class=_tokenizer(folder),
        peft_config=_lora(),
    ).train()  # fmt: skip
