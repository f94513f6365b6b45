"""MLflow: one run a job, found again by its tag; each step comes with its number in a tag, so that none is told twice."""

import re
from typing import Any, Final

from mlflow import MlflowClient  # pyright: ignore[reportMissingImports] - an extra
from mlflow.entities import Metric, Param, RunTag  # pyright: ignore[reportMissingImports]

from tunesmith.domain.recording import End, Row, Run
from tunesmith.notify.trackers.tracker import Place

JOB_TAG: Final = "tunesmith.job"
STEP_TAG: Final = "tunesmith.step"
#: What its names cannot hold.
_UNKNOWN: Final = re.compile(r"[^\w\-. :/]")
_ENDS: Final = {"succeeded": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}


def begin(run: Run, place: Place) -> "MlflowRun":
    """Begin a run, or go on with the one that has the job's tag."""
    client: Any = MlflowClient(tracking_uri=place.url)
    known = client.get_experiment_by_name(run.project)
    experiment = client.create_experiment(run.project) if known is None else known.experiment_id
    found = client.search_runs([experiment], f"tags.`{JOB_TAG}` = '{run.job_id}'", max_results=1)
    if found:
        client.update_run(found[0].info.run_id, status="RUNNING")
        return MlflowRun(client, found[0].info.run_id, int(found[0].data.tags.get(STEP_TAG, -1)))
    tags = {JOB_TAG: run.job_id, "tags": ", ".join(run.tags)}
    made = client.create_run(experiment, start_time=int(run.created_at * 1000), tags=tags, run_name=run.name)
    config = {**run.config, **run.config["hyperparameters"]}
    params = [Param(name, str(value)) for name, value in config.items() if name != "hyperparameters"]
    client.log_batch(made.info.run_id, params=params)
    return MlflowRun(client, made.info.run_id, -1)


class MlflowRun:
    """The `Tracker` over a run on a tracking server."""

    def __init__(self, client: Any, run_id: str, last_step: int) -> None:
        self._client = client
        self._id = run_id
        self.last_step = last_step
        self.url: str | None = None

    def tell(self, row: Row) -> None:
        """Log a step's numbers, and its own in a tag."""
        metrics = [
            Metric(_UNKNOWN.sub("_", name), number, int(row.at * 1000), row.step)
            for name, number in row.numbers.items()
            if name not in ("step", "total_steps")
        ]
        self._client.log_batch(self._id, metrics=metrics, tags=[RunTag(STEP_TAG, str(row.step))])

    def rest(self) -> None:
        """Take note of a pause: what waits to go on is `SCHEDULED`."""
        self._client.update_run(self._id, status="SCHEDULED")

    def end(self, end: End) -> None:
        """Log how the job ended, with its small files."""
        self._client.log_batch(self._id, tags=[RunTag(name, str(value)) for name, value in end.summary.items()])
        for name, text in end.files.items():
            self._client.log_text(self._id, text, name)
        self._client.set_terminated(self._id, status=_ENDS[end.status])
