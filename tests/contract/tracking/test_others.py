"""TensorBoard, MLflow and trackio, each by its real package where that is installed, and read back by it."""

import asyncio
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.data_folder import FolderRefused
from tunesmith.core.settings import Settings
from tunesmith.domain import recording
from tunesmith.domain.recording import End, Row, Run
from tunesmith.notify.processes import TrackerProcesses
from tunesmith.supervisor.child import NICENESS

RUN: dict[str, Any] = {
    "job_id": "ftjob-x", "place": 0, "project": "tunesmith", "name": "ftjob-x", "entity": None, "tags": ["openai/finetune"],
    "config": {"model": "nano", "seed": 3, "hyperparameters": {"n_epochs": 2}}, "created_at": 1_700_000_000.0,
}  # fmt: skip
NUMBERS = {step: {"train_loss": 1.5 / step, "scores/graders/python/a (b)/train_reward_mean": 0.5} for step in range(1, 7)}
END = End("succeeded", {"status": "succeeded", "fine_tuned_model": "ft:nano"}, {"step_metrics.csv": "step\n1\n"})


def told_twice(folder: Path, kind: Any, **settings: Any) -> None:
    """Tell three steps, rest, and go on with what the tracker does not have."""
    trackers = TrackerProcesses(folder, Settings(**settings))
    rows = [Row(step, 1_700_000_000.0 + step, {}, {"step": step, **told}) for step, told in NUMBERS.items()]

    async def tell() -> None:
        run = await trackers.open(Run(kind=kind, **RUN))
        await run.tell(rows[:3])
        own, its = (os.getpriority(os.PRIO_PROCESS, pid) for pid in (0, run._process.pid))
        assert its == min(19, own + NICENESS), "a training never waits for the processor that a tracker has"
        await run.rest()
        run = await trackers.open(Run(kind=kind, **RUN))
        await run.tell([row for row in rows if row.step > run.last_step])
        await run.end(END)

    asyncio.run(tell())


def test_tensorboard(tmp_path: Path) -> None:
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    told_twice(tmp_path, "tensorboard", tensorboard_dir=tmp_path / "boards")
    found: dict[str, list[tuple[int, float]]] = {}
    (file,) = (tmp_path / "boards" / "ftjob-x").iterdir()
    text, at = file.read_bytes(), 0
    while at < len(text):  # a length, its checksum, a record, its checksum
        (length,) = struct.unpack_from("<Q", text, at)
        event = event_pb2.Event.FromString(text[at + 12 : at + 12 + length])
        for value in event.summary.value:
            if value.HasField("simple_value"):
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
        at += 12 + length + 4
    assert found["train_loss"] == [(step, pytest.approx(1.5 / step)) for step in NUMBERS]
    assert len(found) == 2


@pytest.mark.filterwarnings("ignore")  # its own use of SQLAlchemy
def test_mlflow(tmp_path: Path) -> None:
    mlflow: Any = pytest.importorskip("mlflow")
    url = f"sqlite:///{tmp_path}/mlflow.db"
    client = mlflow.MlflowClient(url)
    client.create_experiment("tunesmith", artifact_location=str(tmp_path / "artifacts"))
    told_twice(tmp_path, "mlflow", mlflow_url=url)
    (run,) = client.search_runs([client.get_experiment_by_name("tunesmith").experiment_id])
    history = client.get_metric_history(run.info.run_id, "train_loss")
    assert [(metric.step, metric.value) for metric in history] == [(step, 1.5 / step) for step in NUMBERS]
    assert (run.info.status, run.data.params["n_epochs"], run.data.tags["fine_tuned_model"]) == ("FINISHED", "2", "ft:nano")
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["step_metrics.csv"]
    client._tracking_client.store._dispose_engine()


@pytest.mark.filterwarnings("ignore")
def test_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "track"))
    storage: Any = pytest.importorskip("trackio.sqlite_storage")
    told_twice(tmp_path, "trackio", trackio_dir=tmp_path / "track")
    logs = storage.SQLiteStorage.get_logs("tunesmith", "ftjob-x")
    assert [(line["step"], line["train_loss"]) for line in logs] == [(step, 1.5 / step) for step in NUMBERS]


def test_a_server_does_not_start_for_a_tracker_that_is_not_installed(
    tmp_path: Path, open_house: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(recording.PACKAGES, "trackio", "no_such_package")
    refused = pytest.raises(FolderRefused, match=r"pip install 'tunesmith\[trackio\]'")
    with refused, open_house(tmp_path / "data", trackio_dir=tmp_path):
        pass


def test_every_job_is_told_to_the_trackers_of_the_settings(make_house: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    house = make_house(tensorboard_dir=tmp_path)
    assert [told["type"] for told in house.told(house.create())] == ["tensorboard"]
