"""The task `train` on a tiny random base, from JSONL bytes in the blob store to a finished adapter."""

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tunesmith.blobs.local import LocalBlobs
from tunesmith.core.channel import Task
from tunesmith.data.folder import pins
from tunesmith.data.render import Renderer
from tunesmith.domain.tasks import TrainSpec
from tunesmith.lm import blueprint
from tunesmith.worker import train

N_ROWS = 12


class News:
    """A worker's reporter and control that keep what was told."""

    def __init__(self, *, pause_after: int | None = None) -> None:
        self.pause_after = pause_after
        self.steps: dict[int, dict[str, Any]] = {}
        self.checkpoints: list[str] = []
        self.end: tuple[str, Any] | None = None

    def started(self, *, total_steps: int, step: int) -> None:
        self.total_steps, self.first_step = total_steps, step

    def metrics(self, step: int, total_steps: int, values: dict[str, Any]) -> None:
        self.steps[step] = values

    def message(self, text: str, *, level: str = "info", key: str | None = None) -> None:
        raise AssertionError(text)

    def checkpoint(self, step: int, key: str, sha256: str, metrics: dict[str, Any]) -> None:
        self.checkpoints.append(key)

    def finished(self, data: dict[str, Any]) -> None:
        self.end = ("finished", data)

    def paused(self, step: int, key: str, sha256: str, metrics: dict[str, Any]) -> None:
        self.end = ("paused", (step, key, sha256, metrics))

    def failed(self, code: str, param: str | None, message: str) -> None:
        self.end = ("failed", (code, param, message))

    def pause_asked(self) -> bool:
        return self.pause_after is not None and len(self.steps) >= self.pause_after


def rows(n: int) -> bytes:
    made = [
        {
            "messages": [
                {"role": "system", "content": "Name the colour."},
                {"role": "user", "content": f"thing {i}"},
                {"role": "assistant", "content": ("red", "green", "blue")[i % 3]},
            ]
        }
        for i in range(n)
    ]
    return "\n".join(json.dumps(row) for row in made).encode()


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    store = LocalBlobs(tmp_path / "blobs")
    store.put("files/train", [rows(N_ROWS)])
    store.put("files/valid", [rows(3)])
    return store


@pytest.fixture
def folder(base_folder: Callable[[str], Path]) -> Path:
    return base_folder("qwen3")


@pytest.fixture
def spec(folder: Path, blobs: LocalBlobs, tmp_path: Path) -> TrainSpec:
    return TrainSpec(
        method="supervised",
        hyperparameters={"n_epochs": 2, "batch_size": 3, "learning_rate_multiplier": 1.0},
        method_config={}, seed=5, base_path=str(folder), base_name="tiny", context_length=128, pins=pins(folder),
        blobs=blobs.url, training_key="files/train", validation_key="files/valid", output_key="jobs/j/attempts/2",
        start_adapter=None, resume_key=None, threads=1, max_line_bytes=100_000, blueprints=str(tmp_path / "kept"),
    )  # fmt: skip


def do(spec: TrainSpec, blobs: LocalBlobs, news: News | None = None) -> News:
    news = news or News()
    task = Task(kind="train", job="j", attempt=2, token="t", socket="", folder="", spec=spec.to_mapping())
    train.run(task, spec, news, news, blobs)
    return news


def test_rows_become_an_adapter(spec: TrainSpec, blobs: LocalBlobs, folder: Path) -> None:
    news = do(spec, blobs)
    assert (news.first_step, news.total_steps) == (0, 8)
    assert list(news.steps) == list(range(1, 9))
    assert news.steps[8]["train_loss"] < news.steps[1]["train_loss"]
    assert news.checkpoints == ["jobs/j/attempts/2/checkpoints/000004"]
    assert news.end is not None
    kind, data = news.end
    assert kind == "finished"
    assert data["key"] == "jobs/j/attempts/2/checkpoints/000008"
    assert data["step"] == 8
    assert data["metrics"] == news.steps[8]
    assert "full_valid_loss" in data["metrics"]
    written = {key.rpartition("/")[2] for key in blobs.keys(data["key"])}
    assert written >= {"adapter_model.safetensors", "adapter_config.json", "MANIFEST.json"}
    manifest = json.loads((blobs.path(data["key"]) / "MANIFEST.json").read_text())
    assert manifest["files"]["adapter_model.safetensors"]["sha256"] == data["sha256"]
    assert manifest["pins"] == spec.pins
    renderer = Renderer.load(folder)
    lines = rows(N_ROWS).decode().splitlines()
    tokens = [renderer.examples(json.loads(line)["messages"], max_tokens=128)[0].tokens for line in lines]
    assert data["trained_tokens"] == 2 * sum(len(row) for row in tokens)
    assert torch.get_num_threads() == 1


def test_trained_tokens_are_counted_up_to_the_context(spec: TrainSpec, blobs: LocalBlobs, folder: Path) -> None:
    end = do(replace(spec, context_length=57), blobs).end
    assert end is not None
    renderer = Renderer.load(folder)
    lengths = [
        len(renderer.examples(json.loads(line)["messages"], max_tokens=10_000)[0].tokens)
        for line in rows(N_ROWS).decode().splitlines()
    ]
    assert max(lengths) > 57
    assert end[1]["trained_tokens"] == 2 * sum(min(length, 57) for length in lengths)


def test_the_same_task_gives_the_same_adapter_and_a_lost_attempt_is_gone_on_from(spec: TrainSpec, blobs: LocalBlobs) -> None:
    first = do(spec, blobs)
    again = do(replace(spec, output_key="jobs/j/attempts/3"), blobs)
    resumed = do(replace(spec, output_key="jobs/j/attempts/4", resume_key=first.checkpoints[0]), blobs)
    assert resumed.first_step == 4
    ends = [news.end[1] for news in (first, again, resumed) if news.end]
    assert len({end["sha256"] for end in ends}) == 1
    assert len({end["trained_tokens"] for end in ends}) == 1


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_other_families_train_too(
    spec: TrainSpec, blobs: LocalBlobs, base_folder: Callable[[str], Path], family: str
) -> None:
    other = base_folder(family)
    news = do(replace(spec, base_path=str(other), pins=pins(other)), blobs)
    assert news.end is not None
    assert news.end[0] == "finished"
    assert news.steps[8]["train_loss"] < news.steps[1]["train_loss"]


@pytest.mark.parametrize("pause_after", [0, 3])
def test_a_pause_ends_the_task_with_a_checkpoint_from_which_it_ends_the_same(
    spec: TrainSpec, blobs: LocalBlobs, pause_after: int
) -> None:
    whole = do(replace(spec, output_key="jobs/j/attempts/1"), blobs)
    news = do(spec, blobs, News(pause_after=pause_after))
    assert list(news.steps) == list(range(1, pause_after + 1))
    assert news.end is not None
    kind, (step, key, sha256, metrics) = news.end
    assert (kind, step, key) == ("paused", pause_after, f"jobs/j/attempts/2/checkpoints/{pause_after:06d}")
    assert metrics == news.steps.get(pause_after, {})
    manifest = json.loads((blobs.path(key) / "MANIFEST.json").read_text())
    assert manifest["files"]["adapter_model.safetensors"]["sha256"] == sha256
    again = do(replace(spec, output_key="jobs/j/attempts/3", resume_key=key), blobs, News(pause_after=0))
    assert again.end == news.end, "a pause before the next step needs no other checkpoint"
    resumed = do(replace(spec, output_key="jobs/j/attempts/4", resume_key=key), blobs)
    assert whole.end is not None
    assert resumed.end is not None
    assert resumed.end[1]["sha256"] == whole.end[1]["sha256"]
    assert news.steps | resumed.steps == whole.steps


def failure(spec: TrainSpec, blobs: LocalBlobs) -> tuple[str, str | None, str]:
    end = do(spec, blobs).end
    assert end is not None
    assert end[0] == "failed"
    return end[1]


def test_a_base_that_changed_is_refused(spec: TrainSpec, blobs: LocalBlobs) -> None:
    code, param, message = failure(replace(spec, pins=spec.pins | {"weights": "0" * 64}), blobs)
    assert (code, param) == ("base_changed", "model")
    assert "its weights changed" in message


def test_a_checkpoint_of_another_seed_is_refused(spec: TrainSpec, blobs: LocalBlobs) -> None:
    first = do(spec, blobs)
    other = replace(spec, seed=6, output_key="jobs/j/attempts/3", resume_key=first.checkpoints[0])
    code, _, message = failure(other, blobs)
    assert code == "checkpoint_invalid"
    assert "differs in seed" in message


def test_an_adapter_that_is_not_there_is_refused(spec: TrainSpec, blobs: LocalBlobs) -> None:
    code, param, message = failure(replace(spec, start_adapter="jobs/gone"), blobs)
    assert (code, param) == ("adapter_invalid", "model")
    assert "holds no adapter" in message


def test_divergence_names_the_multiplier(spec: TrainSpec, blobs: LocalBlobs) -> None:
    wild = spec.hyperparameters | {"learning_rate_multiplier": 1e30}
    code, param, message = failure(replace(spec, hyperparameters=wild), blobs)
    assert (code, param) == ("diverged", "learning_rate_multiplier")
    assert "1e+30" in message


def test_a_full_disk_is_told(spec: TrainSpec, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_FAILPOINTS", "checkpoint.put=raise")
    code, _, message = failure(spec, blobs)
    assert code == "disk_full"
    assert "disk is full" in message


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_a_lack_of_memory_is_told(
    spec: TrainSpec, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def exhausted(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(blueprint.loading, "load", exhausted)
    code, _, message = failure(spec, blobs)
    assert code == "out_of_memory"
    assert "smaller base model" in message


@pytest.mark.parametrize("error", [RuntimeError("a bug"), OSError(errno.EACCES, os.strerror(errno.EACCES))])
def test_anything_else_is_a_crash(
    spec: TrainSpec, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(blueprint.loading, "load", broken)
    with pytest.raises(type(error)):
        do(spec, blobs)


def test_a_base_that_cannot_be_proved_is_refused(
    spec: TrainSpec, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = blueprint.loading.load

    def with_another_head(folder: Path, **how: Any) -> Any:
        base = loaded(folder, **how)
        return replace(base, head=replace(base.head, scale=3.0))

    monkeypatch.setattr(blueprint.loading, "load", with_another_head)
    code, param, message = failure(spec, blobs)
    assert (code, param) == ("base_not_supported", "model")
    assert "relative distance" in message


def test_a_date_in_the_template_is_the_jobs(spec: TrainSpec, blobs: LocalBlobs) -> None:
    end = do(replace(spec, created_at=1_700_000_000.0), blobs).end
    assert end is not None
    assert end[0] == "finished"
