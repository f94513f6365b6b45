"""TensorBoard: one folder of event files a job, written anew from its first step whenever the job goes on."""

import json
import shutil
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from tunesmith.domain.recording import End, Row, Run
from tunesmith.notify.trackers.tracker import Place


def begin(run: Run, place: Place) -> "TensorboardRun":
    """Begin the job's folder."""
    folder = Path(place.folder or ".") / run.job_id
    shutil.rmtree(folder, ignore_errors=True)
    writer = SummaryWriter(logdir=str(folder), write_to_disk=True)
    about = {"name": run.name, "tags": run.tags, **run.config}
    writer.add_text("job", f"```json\n{json.dumps(about, indent=2)}\n```", 0, walltime=run.created_at)
    return TensorboardRun(writer, str(folder))


class TensorboardRun:
    """The `Tracker` over a writer of event files."""

    def __init__(self, writer: Any, folder: str) -> None:
        self._writer = writer
        self.last_step = -1
        self.url: str | None = folder

    def tell(self, row: Row) -> None:
        """Write a step's numbers."""
        for name, number in row.numbers.items():
            if name not in ("step", "total_steps"):
                self._writer.add_scalar(name, number, row.step, walltime=row.at)
        self._writer.flush()

    def rest(self) -> None:
        """Close the file."""
        self._writer.close()

    def end(self, end: End) -> None:
        """Write how the job ended, and close the file."""
        self._writer.add_text("end", f"```json\n{json.dumps(end.summary, indent=2)}\n```")
        self._writer.close()
