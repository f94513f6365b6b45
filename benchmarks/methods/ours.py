"""Our side of a work: the task `train`, as a job's worker does it."""

import os
from pathlib import Path
from typing import Any

from benchmarks.methods.shapes import SEED, Row, read_rows
from benchmarks.methods.watch import Stopwatch
from benchmarks.methods.works import CONTEXT, GROUP, TRAIN, VALID, Work
from tunesmith.domain.tasks import BLUEPRINTS


class Listener:
    """Reporter and control of a training that is only looked at."""

    def __init__(self, work: Work, watch: Stopwatch) -> None:
        self._work, self._watch = work, watch

    def started(self, **_: Any) -> None: ...

    def metrics(self, step: int, _: int, values: dict[str, Any]) -> None:
        """Note a step."""
        if step:
            self._watch.mark()
            if self._work.method == "reinforcement":
                self._watch.worth.append(values["completion_tokens_mean"] * GROUP * self._work.batch)

    def checkpoint(self, *_: Any) -> None: ...

    def finished(self, data: dict[str, Any]) -> None: ...

    def message(self, text: str, **_: Any) -> None:
        """Show a warning."""
        print(text, flush=True)

    def failed(self, *why: Any) -> None:
        """End the benchmark."""
        raise RuntimeError(why)

    def pause_asked(self) -> bool:
        """Go on."""
        return False


def prove(folder: Path) -> None:
    """Prove the base, as the first job on it does: once for all jobs after it."""
    from tunesmith.data.folder import pins
    from tunesmith.lm.blueprint import open_base

    open_base(folder / "base", pins(folder / "base"), folder / BLUEPRINTS)


def run(work: Work, folder: Path, watch: Stopwatch) -> None:
    """Train to the end."""
    from tunesmith.blobs.local import LocalBlobs
    from tunesmith.core.channel import Task
    from tunesmith.data.folder import pins
    from tunesmith.domain.tasks import TrainSpec
    from tunesmith.worker import train

    blobs = LocalBlobs(folder / "blobs")
    hyperparameters = {"n_epochs": work.n_epochs, "batch_size": work.batch, "learning_rate_multiplier": 1.0}
    spec = TrainSpec(
        method=work.method, hyperparameters=hyperparameters | work.hyperparameters, method_config=work.config, seed=SEED,
        base_path=str(folder / "base"), base_name="bench", context_length=CONTEXT, pins=pins(folder / "base"),
        blobs=blobs.url, training_key=TRAIN, validation_key=VALID if work.method == "reinforcement" else None,
        output_key=f"out/{os.getpid()}", start_adapter=None, resume_key=None, threads=1, max_line_bytes=10**6,
        blueprints=str(folder / BLUEPRINTS), extra={"grader_env": str(folder / "graders"), "sandbox_reduced": True},
    )  # fmt: skip
    listener: Any = Listener(work, watch)
    train.run(Task("train", "bench", 1, "", "", "", spec.to_mapping()), spec, listener, listener, blobs)
    if work.method == "supervised":
        rows = ordered_rows(folder)
        watch.worth = [n_trained(folder, rows[i : i + work.batch]) for i in range(0, len(rows), work.batch)]
    elif work.method == "dpo":
        watch.worth = [float(work.batch)] * len(watch.marks)


def ordered_rows(folder: Path, epoch: int = 0) -> list[Row]:
    """Return the rows in the order in which our loop takes them, so that TRL can be handed the same."""
    rows = read_rows(folder / "blobs" / TRAIN)
    return [rows[i] for i in order(len(rows), epoch)]


def order(n_rows: int, epoch: int) -> list[int]:
    """Return the rows' numbers in the order of an epoch."""
    from tunesmith.engine.order import order as ours

    return ours(n_rows, seed=SEED, epoch=epoch)


def n_trained(folder: Path, rows: list[Row]) -> float:
    """Return the trained tokens of chats."""
    from tunesmith.data.render import Renderer

    renderer = Renderer.load(folder / "base")
    examples = [example for row in rows for example in renderer.examples(row["messages"], max_tokens=CONTEXT)]
    return float(sum(example.n_trained for example in examples))
