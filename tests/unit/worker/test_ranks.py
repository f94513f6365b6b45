"""One training in two processes, as the worker starts them: they meet, share every step, and end together."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tunesmith.blobs.local import LocalBlobs
from tunesmith.core.channel import Task
from tunesmith.data.folder import pins
from tunesmith.domain.tasks import TrainSpec
from tunesmith.lm.load import choose_dtype
from tunesmith.worker import train
from tunesmith.worker.further import Silent
from tunesmith.worker.ranks import LOST_RANK

#: Sums in another order: the last digits of what the machine computes in.
CLOSE = {torch.float32: 1e-4, torch.bfloat16: 0.05}[choose_dtype(torch.device("cpu"))]
KNOBS: dict[str, Any] = {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 1.0}
GRADER = {"type": "string_check", "name": "g", "operation": "ilike", "input": "{{ sample.output_text }}", "reference": "e"}


def chat(i: int) -> dict[str, Any]:
    asked = [{"role": "user", "content": f"thing {i}"}]
    return {"messages": [*asked, {"role": "assistant", "content": ("red", "green", "blue")[i % 3]}]}


def pair(i: int) -> dict[str, Any]:
    good, bad = [{"role": "assistant", "content": "the red one"}], [{"role": "assistant", "content": "blue"}]
    asked = {"messages": [{"role": "user", "content": f"thing {i}"}]}
    return {"input": asked, "preferred_output": good, "non_preferred_output": bad}


def prompt(i: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"thing {i}"}]}


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    store = LocalBlobs(tmp_path / "blobs")
    for name, row in (("supervised", chat), ("dpo", pair), ("reinforcement", prompt)):
        store.put(f"files/{name}", ["\n".join(json.dumps(row(i)) for i in range(8)).encode()])
    return store


@pytest.fixture
def spec(base_folder: Callable[[str], Path], blobs: LocalBlobs, tmp_path: Path) -> TrainSpec:
    folder = base_folder("qwen3")
    return TrainSpec(
        method="supervised", hyperparameters=KNOBS, method_config={}, seed=5, base_path=str(folder), base_name="tiny",
        context_length=96, pins=pins(folder), blobs=blobs.url, training_key="files/supervised",
        validation_key="files/supervised", output_key="out/1", start_adapter=None, resume_key=None, threads=1,
        max_line_bytes=10_000, extra={"grader_env": str(tmp_path / "none"), "sandbox_reduced": True},
    )  # fmt: skip


@dataclass
class Ended:
    """How a worker ended, and what it reported."""

    code: int
    reports: list[dict[str, Any]]
    log: str

    def steps(self) -> list[dict[str, Any]]:
        return [report["data"] for report in self.reports if report["kind"] == "metrics"]


@contextlib.contextmanager
def started(spec: TrainSpec, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], Ended]]]:
    """Start a worker as a supervisor does; what is yielded waits for its end."""
    folder.mkdir()
    task = Task("train", "ftjob-x", 1, "secret", "socket", str(folder), spec.to_mapping())
    (folder / "task.json").write_text(task.to_json())
    report_read, report_write = os.pipe()
    control_read, control_write = os.pipe()
    descriptors = {"TUNESMITH_REPORT_FD": str(report_write), "TUNESMITH_CONTROL_FD": str(control_read)}
    environment = {**os.environ, **descriptors, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tunesmith.worker.run", str(folder / "task.json")]
    with (folder / "log").open("wb") as log:
        worker = subprocess.Popen(command, env=environment, pass_fds=(report_write, control_read), stdout=log, stderr=log)
    os.close(report_write)

    def ended() -> Ended:
        said = b""
        while part := os.read(report_read, 1 << 16):
            said += part
        code = worker.wait(60)
        return Ended(code, [json.loads(line) for line in said.splitlines()], (folder / "log").read_text())

    try:
        yield worker, ended
    finally:
        worker.kill()
        worker.wait()
        for descriptor in (report_read, control_read, control_write):
            os.close(descriptor)


def run(spec: TrainSpec, folder: Path) -> Ended:
    with started(spec, folder) as (_, ended):
        return ended()


def here(spec: TrainSpec, blobs: LocalBlobs) -> Ended:
    """Train in this process."""
    reports: list[dict[str, Any]] = []

    class Listener(Silent):
        def started(self, *, total_steps: int, step: int) -> None:
            reports.append({"kind": "started"})

        def metrics(self, step: int, total_steps: int, values: dict[str, Any]) -> None:
            reports.append({"kind": "metrics", "data": values})

        def checkpoint(self, step: int, key: str, sha256: str, metrics: dict[str, Any]) -> None:
            reports.append({"kind": "checkpoint"})

        def finished(self, data: dict[str, Any]) -> None:
            reports.append({"kind": "finished"})

    listener = Listener()
    train.run(Task("train", "ftjob-x", 1, "", "", "", spec.to_mapping()), spec, listener, listener, blobs)
    return Ended(0, reports, "")


def distance(blobs: LocalBlobs, one: str, other: str) -> float:
    """How far two runs' adapters lie apart, beside how far they moved."""
    first, last = (load_file(blobs.path(f"{key}/checkpoints/000004") / "adapter_model.safetensors") for key in (one, other))
    moved = sum(float(tensor.square().sum()) for name, tensor in first.items() if "lora_B" in name)
    return (sum(float((first[name] - last[name]).square().sum()) for name in first if "lora_B" in name) / moved) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("method", "spread"), [("supervised", False), ("dpo", True)])
def test_two_processes_train_what_one_does(
    spec: TrainSpec, blobs: LocalBlobs, tmp_path: Path, method: str, spread: bool
) -> None:
    knobs = KNOBS | ({"beta": 0.1} if method == "dpo" else {})
    key = f"files/{method}"
    alone = replace(spec, method=method, hyperparameters=knobs, training_key=key, validation_key=key, output_key="out/one")
    single = here(alone, blobs)
    both = run(replace(alone, processes=2, spread=spread, output_key="out/two"), tmp_path / "two")
    assert both.code == 0, both.log
    assert [report["kind"] for report in both.reports] == [report["kind"] for report in single.reports]
    assert [each["train_loss"] for each in both.steps()] == pytest.approx(
        [each["train_loss"] for each in single.steps()], rel=CLOSE
    )
    assert both.steps()[-1]["full_valid_loss"] == pytest.approx(single.steps()[-1]["full_valid_loss"], rel=CLOSE)
    assert distance(blobs, "out/one", "out/two") < 20 * CLOSE


@pytest.mark.slow
def test_two_processes_sample_and_grade_what_one_does(spec: TrainSpec, blobs: LocalBlobs, tmp_path: Path) -> None:
    knobs = KNOBS | {
        "compute_multiplier": 0.5, "eval_interval": 2, "eval_samples": 1, "reasoning_effort": "none", "n_epochs": 1,
        "learning_rate_multiplier": 1e-6,
    }  # fmt: skip
    key = "files/reinforcement"
    alone = replace(
        spec, method="reinforcement", hyperparameters=knobs, method_config={"grader": GRADER}, training_key=key,
        validation_key=key, output_key="out/one",
    )  # fmt: skip
    single = here(alone, blobs)
    both = run(replace(alone, processes=2, output_key="out/two"), tmp_path / "two")
    assert both.code == 0, both.log
    files = [blobs.path(f"out/{name}/rollouts") / "000001.jsonl" for name in ("one", "two")]
    texts = [[json.loads(line)["output_text"] for line in file.read_text().splitlines()] for file in files]
    same = sum(one == two for one, two in zip(*texts, strict=True))
    # which rows are computed together moves the last digits, and now and then a draw
    assert same >= 0.7 * len(texts[0])
    assert [report["kind"] for report in both.reports] == [report["kind"] for report in single.reports]


def test_a_spread_base_is_not_sampled_from(spec: TrainSpec, tmp_path: Path) -> None:
    knobs = KNOBS | {"compute_multiplier": 1.0, "eval_interval": 2, "eval_samples": 1, "reasoning_effort": "default"}
    ended = run(
        replace(
            spec, method="reinforcement", hyperparameters=knobs, method_config={"grader": GRADER}, processes=2, spread=True,
            training_key="files/reinforcement", validation_key="files/reinforcement",
        ),
        tmp_path / "two",
    )  # fmt: skip
    (report,) = ended.reports
    assert (report["kind"], report["data"]["code"]) == ("failed", "base_not_supported")
    assert "training_spread" in report["data"]["message"]


def test_the_worker_ends_when_another_process_dies(spec: TrainSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_FAILPOINTS", "train.step=sleep:60")
    with started(replace(spec, processes=2), tmp_path / "two") as (worker, ended):
        other = _child_of(worker.pid)
        while "failpoint train.step" not in (tmp_path / "two" / "log").read_text():
            time.sleep(0.05)
        os.kill(other, 9)
        end = ended()
    assert end.code == LOST_RANK
    assert "another process of this training ended" in end.log


def test_the_other_process_dies_with_the_worker(spec: TrainSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_FAILPOINTS", "train.step=sleep:60")
    with started(replace(spec, processes=2), tmp_path / "two") as (worker, _):
        other = _child_of(worker.pid)
        while "failpoint train.step" not in (tmp_path / "two" / "log").read_text():
            time.sleep(0.05)
        environment = Path(f"/proc/{other}/environ").read_bytes()
        assert b"TUNESMITH_JOB=ftjob-x\0" in environment
        assert b"TUNESMITH_ATTEMPT=1\0" in environment
        worker.kill()
        worker.wait()
        end = time.monotonic() + 5
        while Path(f"/proc/{other}").exists() and time.monotonic() < end:
            time.sleep(0.01)
        assert not Path(f"/proc/{other}").exists()


def _child_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    end = time.monotonic() + 60
    while not children.read_text().split() and time.monotonic() < end:
        time.sleep(0.05)
    return int(children.read_text().split()[0])
