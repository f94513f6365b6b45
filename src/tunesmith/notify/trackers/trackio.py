"""trackio: a run of the job's name in a folder's database, which knows itself how far it has come."""

import os
from pathlib import Path
from typing import Any

from tunesmith.domain.recording import End, Row, Run
from tunesmith.notify.trackers.tracker import Place


def begin(run: Run, place: Place) -> "TrackioRun":
    """Begin a run, or go on with the one of that name."""
    os.environ["TRACKIO_DIR"] = str(Path(place.folder or ".").absolute())
    os.environ["HF_HUB_OFFLINE"] = "1"  # nobody is to be asked whose machine this is
    import trackio  # pyright: ignore[reportMissingImports] - an extra, and it reads its folder when it is imported

    opened: Any = trackio.init(
        project=run.project,
        name=run.job_id,
        config={"name": run.name, "tags": run.tags, **run.config},
        resume="allow",
        embed=False,
        auto_log_gpu=False,
        auto_log_cpu=False,
    )
    known: int | None = trackio.sqlite_storage.SQLiteStorage.get_max_step_for_run(run.project, run.job_id)
    return TrackioRun(opened, -1 if known is None else known)


class TrackioRun:
    """The `Tracker` over a run of the package's."""

    def __init__(self, run: Any, last_step: int) -> None:
        self._run = run
        self.last_step = last_step
        self.url: str | None = None

    def tell(self, row: Row) -> None:
        """Log a step's numbers."""
        named = {name: number for name, number in row.numbers.items() if name not in ("step", "total_steps")}
        self._run.log(named, step=row.step)

    def rest(self) -> None:
        """Write what is still in hand."""
        self._run.finish()

    def end(self, end: End) -> None:
        """Log how the job ended, with its last step, and write what is still in hand."""
        self._run.config.update(end.summary)
        self._run.finish()
