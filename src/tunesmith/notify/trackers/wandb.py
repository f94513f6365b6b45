"""Weights & Biases: the run has the job's id, goes on under it after a pause, and takes each step once."""

import json
import shutil
from pathlib import Path
from typing import Any, Final

import wandb

from tunesmith.domain.recording import End, Row, Run
from tunesmith.notify.trackers.tracker import Place

JOB_TYPE: Final = "fine-tune"
#: In place of the command that the package finds.
PROGRAM: Final = "tunesmith"
#: How long its server may take to answer at the beginning.
INIT_S: Final = 30.0
#: What a run's end is called by the code of its process.
_CODES: Final = {"succeeded": 0, "failed": 1, "cancelled": 255}
_PAUSED: Final = 1


def begin(run: Run, place: Place) -> "WandbRun":
    """Begin a run, or go on with it where its server knows it; kept here, it is written anew from its first step."""
    folder = Path(place.folder or ".") / (f"{run.job_id}.{run.place}" if run.place else run.job_id)
    if place.offline:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    settings = wandb.Settings(
        api_key=run.secret,
        root_dir=str(folder),
        mode="offline" if place.offline else "online",
        init_timeout=INIT_S,
        console="off",
        silent=True,
        # nothing of this machine is told, only of the job
        program=PROGRAM,
        disable_git=True,
        disable_code=True,
        save_code=False,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
    )
    if run.base_url is not None:
        settings.base_url = run.base_url
    opened = wandb.init(
        project=run.project,
        entity=run.entity,
        id=run.job_id,
        name=run.name,
        tags=run.tags,
        config=run.config,
        job_type=JOB_TYPE,
        resume=None if place.offline else "allow",
        settings=settings,
    )
    return WandbRun(opened, run.job_id, None if place.offline else folder)


class WandbRun:
    """The `Tracker` over a run of the package's."""

    def __init__(self, run: Any, job_id: str, scratch: Path | None) -> None:
        self._run = run
        self._job_id = job_id
        #: The package's own copy of what it sends.
        self._scratch = scratch
        self.last_step: int = run.starting_step - 1
        self.url: str | None = None if run.offline else run.url

    def tell(self, row: Row) -> None:
        """Take the metrics of a step: as in its event, and those of graders as the result file calls them."""
        told = {name: number for name, number in row.numbers.items() if "/graders/" in name}
        self._run.log({**row.data, **told, "_timestamp": row.at}, step=row.step, commit=True)

    def rest(self) -> None:
        """Take note of a pause: to Weights & Biases the run is preempted, and waits to go on."""
        self._run.summary["status"] = "paused"
        self._run.mark_preempting()
        self._close(_PAUSED)

    def end(self, end: End) -> None:
        """Take note of the job's end: the state, a summary, and what tells of the model as artifacts."""
        self._run.summary.update(end.summary)
        for name, text in end.files.items():
            is_model = name.endswith(".json")
            artifact = wandb.Artifact(
                "model-metadata" if is_model else f"metrics-{self._job_id}",
                type="model" if is_model else "fine-tune-results",
                metadata=json.loads(text) if is_model else None,
            )
            with artifact.new_file(name, mode="w", encoding="utf-8") as stream:
                stream.write(text)
            self._run.log_artifact(artifact)
        self._close(_CODES[end.status])
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _close(self, code: int) -> None:
        self._run.finish(exit_code=code)
        wandb.teardown()  # waits for the package's own process, which may still be writing
