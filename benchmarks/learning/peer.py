"""TRL's side of a work: its trainer of the method, on the token ids, the numbers and the learning rates of our side."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.learning.scoring import Rewards
from benchmarks.learning.works import ALPHA, BASE, BETA, CONTEXT, GROUP, N_MOST_SAMPLED, RANK, Row, Work, ordered_rows


def train(work: Work, seed: int, folder: Path, *, same_start: bool = False) -> Path:
    """Train with TRL's trainer of the method, `same_start` from the adapter that ours begins with; return its folder."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from torch.optim.lr_scheduler import LambdaLR
    from transformers import AutoTokenizer

    from tunesmith.engine.optim import base_learning_rate, rate_at
    from tunesmith.lm.load import choose_device, choose_dtype, load
    from tunesmith.lm.lora import LoraModel
    from tunesmith.methods.method import METHODS

    torch.set_num_threads(1)
    trainer_class, config_class, given = peers()[work.method](work)

    class Scheduled(trainer_class):
        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            self.lr_scheduler = LambdaLR(
                optimizer or self.optimizer, lambda done: rate_at(done + 1, num_training_steps, 1.0)
            )
            self._created_lr_scheduler = True
            return self.lr_scheduler

        def _prepare_dataset(self, dataset: Any, *others: Any, **named: Any) -> Any:
            # pairs come as token ids, which TRL has no way to be told
            return dataset if work.method == "dpo" else super()._prepare_dataset(dataset, *others, **named)

    width = json.loads((BASE / "config.json").read_text())["hidden_size"]
    device = choose_device()
    n_each = GROUP if work.method == "reinforcement" else 1
    settings = {
        "output_dir": str(folder), "use_cpu": device.type == "cpu", "num_train_epochs": 1, "bf16": False,
        "per_device_train_batch_size": work.batch * n_each, "gradient_checkpointing": False, "save_strategy": "no",
        "report_to": "none", "disable_tqdm": True, "seed": seed, "train_sampling_strategy": "sequential",
        "learning_rate": base_learning_rate(width) * METHODS[work.method].learning_rate,
        "model_init_kwargs": {"dtype": choose_dtype(device)}, "logging_steps": 10,
    }  # fmt: skip
    trainer = Scheduled(
        model=str(BASE), args=config_class(**settings | given.pop("settings")),
        train_dataset=Dataset.from_list(given.pop("rows")(seed)), processing_class=AutoTokenizer.from_pretrained(BASE),
        peft_config=LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"), **given,
    )  # fmt: skip
    if same_start:
        start = LoraModel(load(BASE).model).fresh(seed=seed).tensors()
        for name, tensor in start.items():
            trainer.model.get_parameter(f"base_model.model.{name}.default.weight").data.copy_(tensor)
    trainer.train()
    trainer.save_model(str(folder / "adapter"))
    return folder / "adapter"


def peers() -> dict[str, Callable[[Work], tuple[Any, Any, dict[str, Any]]]]:
    """Return by method what gives TRL's trainer, its configuration, and what both are given."""
    import trl

    from tunesmith.data.render import Renderer

    renderer = Renderer.load(BASE)

    def cut(messages: list[Any]) -> tuple[list[int], list[int]]:
        """Return tokens up to the last trained one, and how each is labelled."""
        (example,) = renderer.examples(messages, max_tokens=CONTEXT)
        labels = [token if weight else -100 for token, weight in zip(example.tokens, example.weights, strict=True)]
        last = max(i for i, label in enumerate(labels) if label != -100) + 1
        return list(example.tokens[:last]), labels[:last]

    def supervised(work: Work) -> tuple[Any, Any, dict[str, Any]]:
        def rows(seed: int) -> list[Row]:
            cuts = [cut(row["messages"]) for row in ordered_rows(work, seed)]
            return [{"input_ids": tokens, "labels": labels} for tokens, labels in cuts]

        return trl.SFTTrainer, trl.SFTConfig, {"rows": rows, "settings": {"max_length": CONTEXT}}

    def dpo(work: Work) -> tuple[Any, Any, dict[str, Any]]:
        def rows(seed: int) -> list[Row]:
            found: list[Row] = []
            for row in ordered_rows(work, seed):
                messages = row["input"]["messages"]
                prompt = renderer.prompt(messages)
                sides = [cut([*messages, *row[side]])[0] for side in ("preferred_output", "non_preferred_output")]
                assert all(tokens[: len(prompt)] == prompt for tokens in sides)
                chosen, rejected = (tokens[len(prompt) :] for tokens in sides)
                found.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
            return found

        both = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, work.nll_weight]} if work.nll_weight else {}
        return trl.DPOTrainer, trl.DPOConfig, {"rows": rows, "settings": {"max_length": CONTEXT, "beta": BETA, **both}}

    def reinforcement(work: Work) -> tuple[Any, Any, dict[str, Any]]:
        def rows(seed: int) -> list[Row]:
            found = ordered_rows(work, seed)
            prompts = [renderer.decode(renderer.prompt(row["messages"]), skip_special_tokens=False) for row in found]
            return [{"prompt": prompt, "answer": row["answer"]} for prompt, row in zip(prompts, found, strict=True)]

        rewards = Rewards(work)

        def reward(completions: list[str], answer: list[str], **_: Any) -> list[float]:
            return rewards(completions, [{"answer": each} for each in answer])

        settings = {
            "num_generations": GROUP, "max_completion_length": N_MOST_SAMPLED, "shuffle_dataset": False, "beta": 0.0,
            "temperature": 1.0, "loss_type": "dapo", "scale_rewards": "group",
        }  # fmt: skip
        return trl.GRPOTrainer, trl.GRPOConfig, {"rows": rows, "settings": settings, "reward_funcs": reward}

    return {"supervised": supervised, "dpo": dpo, "reinforcement": reinforcement}
