"""Our side of a work: the task `train`, as a job's worker does it."""

import json
from pathlib import Path
from typing import Any

from benchmarks.learning.works import BASE, CONTEXT, Work, grader, read_rows


class Listener:
    """Reporter and control of a training of which nothing but the end matters."""

    def __init__(self) -> None:
        self.key = ""

    def started(self, **_: Any) -> None: ...

    def metrics(self, *_: Any) -> None: ...

    def checkpoint(self, *_: Any) -> None: ...

    def finished(self, data: dict[str, Any]) -> None:
        """Keep where the adapter lies."""
        self.key = data["key"]

    def message(self, text: str, **_: Any) -> None:
        """Show a warning."""
        print(text, flush=True)

    def failed(self, *why: Any) -> None:
        """End the benchmark."""
        raise RuntimeError(why)

    def pause_asked(self) -> bool:
        """Go on."""
        return False


def train(work: Work, seed: int, folder: Path) -> Path:
    """Train through the task `train`, as a job's worker does; return the adapter's folder."""
    from tunesmith.blobs.local import LocalBlobs
    from tunesmith.core.channel import Task
    from tunesmith.data.folder import pins
    from tunesmith.domain.tasks import TrainSpec
    from tunesmith.methods.dpo import Dpo
    from tunesmith.methods.method import METHODS
    from tunesmith.worker import train as task

    class Weighted(Dpo):
        def __init__(self, *, beta: float) -> None:
            super().__init__(beta=beta, nll_weight=work.nll_weight)

    METHODS["dpo"] = Weighted  # a job cannot choose the weight
    root = folder / "blobs"
    root.mkdir(parents=True)
    (root / "train.jsonl").write_bytes(work.training.read_bytes())
    reinforced = work.method == "reinforcement"
    if reinforced:
        (root / "valid.jsonl").write_text(json.dumps(read_rows(work.training)[0]) + "\n")
    blobs = LocalBlobs(root)
    knobs = {"n_epochs": work.n_epochs, "batch_size": work.batch, "learning_rate_multiplier": 1.0} | work.hyperparameters
    spec = TrainSpec(
        method=work.method, hyperparameters=knobs, method_config={"grader": grader(work)} if reinforced else {}, seed=seed,
        base_path=str(BASE), base_name=BASE.name, context_length=CONTEXT, pins=pins(BASE), blobs=blobs.url,
        training_key="train.jsonl", validation_key="valid.jsonl" if reinforced else None, output_key="out",
        start_adapter=None, resume_key=None, threads=1, max_line_bytes=10**6,
        extra={"grader_env": str(folder / "graders"), "sandbox_reduced": True},
    )  # fmt: skip
    listener: Any = Listener()
    task.run(Task("train", "bench", 1, "", "", "", spec.to_mapping()), spec, listener, listener, blobs)
    return root / listener.key
