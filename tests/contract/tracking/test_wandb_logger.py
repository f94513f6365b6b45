"""The package's own way to Weights & Biases, `WandbLogger.sync`, which reads jobs and result files of this server.

Kept offline, the package itself refuses to name the training files that a run used; so it is told to leave them out.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from far.wandb_kept import of_kind, plain, run_file

SYNC = """
import sys, openai
from wandb.integration.openai.fine_tuning import WandbLogger
client = openai.OpenAI(base_url=sys.argv[1], api_key="any", max_retries=0)
print(WandbLogger.sync(fine_tune_job_id=sys.argv[2], openai_client=client, project="p", mode="offline", log_datasets=False))
"""


def test_sync_logs_the_steps_and_the_summary_of_a_job(make_house: Any, tmp_path: Path, far: Any) -> None:
    house = make_house()
    job = house.create(validation_file=house.file)
    house.train(job, range(1, 4))
    house.finish(job, 3)
    env = {**os.environ, "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true", "HOME": str(tmp_path)}
    env |= {"WANDB_ERROR_REPORTING": "false", "WANDB_API_KEY": "w" * 40, "WANDB_BASE_URL": far.url}
    command = [sys.executable, "-c", SYNC, house.served.base_url, job]
    with tempfile.TemporaryDirectory() as scratch:  # the package leaves a socket where it is
        env["TMPDIR"] = scratch
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert "successfully" in done.stdout
    found = run_file(next(tmp_path.glob(f"wandb/offline-run-*-{job}/run-{job}.wandb")))
    history = [plain(record.item) for record in of_kind(found, "history")]
    assert [row["_step"] for row in history] == [1, 2, 3]
    assert [round(event.data["train_loss"], 5) for event in house.events(job)] == [row["train_loss"] for row in history]
    summary: dict[str, Any] = {}
    for record in of_kind(found, "summary"):
        summary |= plain(record.update)
    model = house.client.fine_tuning.jobs.retrieve(job).fine_tuned_model
    assert (summary["status"], summary["fine_tuned_model"]) == ("succeeded", model)
    assert "artifact" in {record.WhichOneof("record_type") for record in found}
