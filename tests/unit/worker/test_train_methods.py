"""The task `train` of preferences and of rewards, from JSONL bytes in the blob store to a finished adapter."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tunesmith.blobs.local import LocalBlobs
from tunesmith.core.channel import Task
from tunesmith.data.folder import pins
from tunesmith.domain.tasks import TrainSpec
from tunesmith.methods.auto import resolve
from tunesmith.methods.method import METHODS
from tunesmith.worker import train

N_ROWS = 6
COLOURS = ("red", "green", "blue")
KEY = "jobs/j/attempts/2"
LIKENESS = {
    "type": "text_similarity", "name": "likeness", "input": "{{ sample.output_json }}", "reference": "{{ item.colour }}",
    "evaluation_metric": "fuzzy_match",
}  # fmt: skip
SHORT = {"type": "json_schema", "json_schema": {"name": "colour", "schema": {"type": "string", "enum": COLOURS}}}
BLOCKS: dict[str, dict[str, Any]] = {"reinforcement": {"grader": LIKENESS, "response_format": SHORT}}


def asked(n: int) -> dict[str, str]:
    return {"role": "user", "content": f"thing {n}"}


def said(n: int) -> dict[str, str]:
    return {"role": "assistant", "content": COLOURS[n % 3]}


ROWS: dict[str, Callable[[int], dict[str, Any]]] = {
    "supervised": lambda n: {"messages": [asked(n), said(n)]},
    "dpo": lambda n: {
        "input": {"messages": [asked(n)]}, "preferred_output": [said(n)], "non_preferred_output": [said(n + 1)],
    },
    "reinforcement": lambda n: {"messages": [asked(n)], "colour": COLOURS[n % 3]},
}  # fmt: skip


class News:
    """A worker's reporter and control that keep what was told."""

    def __init__(self, *, pause_after: int | None = None) -> None:
        self.pause_after = pause_after
        self.start: tuple[int, int] | None = None
        self.steps: dict[int, dict[str, Any]] = {}
        self.checkpoints: list[str] = []
        self.end: tuple[str, Any] = ("nothing", None)

    def started(self, *, total_steps: int, step: int) -> None:
        self.start = (step, total_steps)

    def metrics(self, step: int, total_steps: int, values: dict[str, Any]) -> None:
        self.steps[step] = {name: value for name, value in values.items() if name != "timing"}

    def message(self, text: str, *, level: str = "info", key: str | None = None) -> None:
        assert (level, key) == ("warn", "no-gradient"), text

    def checkpoint(self, step: int, key: str, sha256: str, metrics: dict[str, Any]) -> None:
        self.checkpoints.append(key)

    def finished(self, data: dict[str, Any]) -> None:
        self.end = ("finished", data)

    def paused(self, step: int, key: str, sha256: str, metrics: dict[str, Any]) -> None:
        self.end = ("paused", {"step": step, "key": key, "sha256": sha256})

    def failed(self, code: str, param: str | None, message: str) -> None:
        self.end = ("failed", (code, param, message))

    def pause_asked(self) -> bool:
        return self.pause_after is not None and sum(step > 0 for step in self.steps) >= self.pause_after


Make = Callable[..., TrainSpec]


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs")


@pytest.fixture
def make_spec(base_folder: Callable[[str], Path], blobs: LocalBlobs, tmp_path: Path) -> Make:
    """Return a function that makes the task of a method over six rows: 2 steps an epoch, 2 epochs."""
    folder = base_folder("qwen3")

    def make(method: str, *, block: dict[str, Any] | None = None, **changes: Any) -> TrainSpec:
        for name, numbers in (("train", range(N_ROWS)), ("valid", range(N_ROWS, N_ROWS + 2))):
            blobs.put(f"files/{name}", ["\n".join(json.dumps(ROWS[method](n)) for n in numbers).encode()])
        knobs = {"n_epochs": 2, "batch_size": 3}
        if method == "reinforcement":
            knobs |= {"compute_multiplier": 0.5, "eval_interval": 2}
        settings: dict[str, Any] = {
            "method": method, "hyperparameters": resolve(method, knobs, N_ROWS), "seed": 5, "base_path": str(folder),
            "method_config": block if block is not None else BLOCKS.get(method, {}), "base_name": "tiny",
            "context_length": 128, "pins": pins(folder), "blobs": blobs.url, "training_key": "files/train",
            "validation_key": "files/valid", "output_key": KEY, "start_adapter": None, "resume_key": None, "threads": 1,
            "max_line_bytes": 100_000, "extra": {"grader_env": str(tmp_path / "env"), "sandbox_reduced": True},
        }  # fmt: skip
        return TrainSpec(**(settings | changes))

    return make


def do(spec: TrainSpec, blobs: LocalBlobs, news: News | None = None) -> News:
    news = news or News()
    task = Task(kind="train", job="j", attempt=2, token="t", socket="", folder="", spec=spec.to_mapping())
    train.run(task, spec, news, news, blobs)
    return news


@pytest.mark.parametrize("method", METHODS)
def test_rows_become_an_adapter_and_a_lost_attempt_is_gone_on_from(make_spec: Make, blobs: LocalBlobs, method: str) -> None:
    spec = make_spec(method)
    news = do(spec, blobs)
    assert news.start == (0, 4)
    assert [step for step in news.steps if step] == [1, 2, 3, 4]
    assert news.checkpoints == [f"{KEY}/checkpoints/000002"]
    kind, data = news.end
    assert kind == "finished", data
    assert (data["step"], data["key"]) == (4, f"{KEY}/checkpoints/000004")
    assert {name: value for name, value in data["metrics"].items() if name != "timing"} == news.steps[4]
    assert data["trained_tokens"] > 0
    written = {key.removeprefix(f"{data['key']}/") for key in blobs.keys(data["key"])}
    kept = {"source.safetensors"} if METHODS[method].needs_reference else set[str]()
    assert written == {
        "adapter_model.safetensors", "adapter_config.json", "optimizer.safetensors", "cursor.json", "MANIFEST.json", *kept
    }  # fmt: skip
    resumed = do(replace(spec, output_key="jobs/j/attempts/3", resume_key=news.checkpoints[0]), blobs)
    assert resumed.start == (2, 4)
    assert resumed.end[1]["sha256"] == data["sha256"]
    assert resumed.end[1]["trained_tokens"] == data["trained_tokens"]
    assert resumed.steps == {step: values for step, values in news.steps.items() if step > 2}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pause_after", [0, 3])
def test_a_pause_ends_the_task_with_a_checkpoint_from_which_it_ends_the_same(
    make_spec: Make, blobs: LocalBlobs, method: str, pause_after: int
) -> None:
    spec = make_spec(method)
    whole = do(replace(spec, output_key="jobs/j/attempts/1"), blobs)
    news = do(spec, blobs, News(pause_after=pause_after))
    kind, data = news.end
    assert (kind, data["step"], data["key"]) == ("paused", pause_after, f"{KEY}/checkpoints/{pause_after:06d}")
    again = do(replace(spec, output_key="jobs/j/attempts/3", resume_key=data["key"]), blobs, News(pause_after=0))
    assert again.end == news.end, "a pause before the next step needs no other checkpoint"
    resumed = do(replace(spec, output_key="jobs/j/attempts/4", resume_key=data["key"]), blobs)
    assert resumed.end[1]["sha256"] == whole.end[1]["sha256"]
    assert news.steps | resumed.steps == whole.steps


def test_what_was_sampled_is_put_down_step_by_step(make_spec: Make, blobs: LocalBlobs) -> None:
    do(make_spec("reinforcement"), blobs)
    files = sorted(blobs.keys(f"{KEY}/rollouts"))
    assert files == [f"{KEY}/rollouts/{step:06d}.jsonl" for step in range(5)]
    told = [[json.loads(line) for line in blobs.path(key).read_text().splitlines()] for key in files]
    counts = [[sum(record["split"] == split for record in step) for split in ("train", "valid")] for step in told]
    assert counts == [[0, 2], [12, 0], [12, 2], [12, 0], [12, 2]]
    record = told[1][0]
    assert set(record) == {
        "step", "split", "row", "sample", "messages", "output_text", "output_tools", "finish_reason", "reward", "error",
        "scores", "advantage", "prompt_tokens", "completion_tokens",
    }  # fmt: skip
    assert json.loads(record["output_text"]) in COLOURS
    assert record["messages"] == [asked(record["row"] - 1)]


@pytest.mark.parametrize("method", METHODS)
def test_a_tuned_model_is_tuned_further_by_any_method(make_spec: Make, blobs: LocalBlobs, method: str) -> None:
    first = do(make_spec("supervised", output_key="jobs/first"), blobs)
    further = do(make_spec(method, start_adapter=first.end[1]["key"]), blobs)
    fresh = do(make_spec(method, output_key="jobs/fresh"), blobs)
    assert further.end[0] == "finished"
    assert further.end[1]["sha256"] != fresh.end[1]["sha256"]
    code, param, _ = do(make_spec(method, output_key="jobs/x", start_adapter="jobs/gone"), blobs).end[1]
    assert (code, param) == ("adapter_invalid", "model")


@pytest.mark.parametrize("method", METHODS)
def test_divergence_names_the_multiplier_and_the_examples(make_spec: Make, blobs: LocalBlobs, method: str) -> None:
    spec = make_spec(method)
    wild = spec.hyperparameters | {"learning_rate_multiplier": 1e30}
    kind, told = do(replace(spec, hyperparameters=wild), blobs).end
    assert kind == "failed"
    code, param, message = told
    assert (code, param) == ("diverged", "learning_rate_multiplier")
    assert "1e+30" in message
    assert "example " in message


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("{{ item.wanted }}", "there is no item.wanted"),
        ("{{ sample.output_audio.data }}", "there is no sample.output_audio"),
    ],
)
def test_a_grader_that_always_errs_fails_the_job_with_its_reason(
    make_spec: Make, blobs: LocalBlobs, reference: str, why: str
) -> None:
    block = {**BLOCKS["reinforcement"], "grader": {**LIKENESS, "reference": reference}}
    kind, told = do(make_spec("reinforcement", block=block), blobs).end
    assert kind == "failed"
    code, param, message = told
    assert (code, param) == ("grader_failed", "method.reinforcement.grader")
    assert "2 of the 2 samples of step 0, more than 20%" in message
    assert why in message


def test_a_full_disk_is_told_also_where_samples_are_put_down(
    make_spec: Make, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec("reinforcement")
    monkeypatch.setenv("TUNESMITH_FAILPOINTS", "blobs.write=raise")
    assert do(spec, blobs).end[1][0] == "disk_full"
