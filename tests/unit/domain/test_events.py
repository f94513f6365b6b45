from dataclasses import replace

import pytest

from tunesmith.domain import events
from tunesmith.domain.job import Job
from tunesmith.domain.results import COLUMNS, results_csv

JOB = Job(
    id="ftjob-x", project_id="p", organization_id="o", model="m", base="m", start_adapter=None, training_file="file-a",
    validation_file=None, suffix=None, seed=1, method="supervised", method_config={}, resolved=None, integrations=[],
    metadata=None, created_at=0.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (events.created(JOB), "Created fine-tuning job: ftjob-x"),
        (events.validating(JOB), "Validating training file: file-a"),
        (
            events.validating(replace(JOB, validation_file="file-b")),
            "Validating training file: file-a and validation file: file-b",
        ),
        (events.validated(), "Files validated, moving job to queued state"),
        (events.started(2, 0), "Fine-tuning job started"),
        (events.checkpoint(40, "ft:m:o::t:ckpt-step-40", 1.0),
         "Checkpoint created at step 40 with Snapshot ID: ft:m:o::t:ckpt-step-40"),
        (events.model_created("ft:m:o::t"), "New fine-tuned model created: ft:m:o::t"),
        (events.succeeded(), "The job has successfully completed"),
        (events.cancelled(), "The job was cancelled"),
        (events.lost(2, "Gone", None), "Gone; the job starts again"),
        (events.lost(2, "Gone", 0), "Gone; the job goes on from its checkpoint at step 0"),
    ],
)  # fmt: skip
def test_the_wording_that_scripts_wait_for(event, message):
    assert event.message == message
    assert event.type == "message"


def test_one_terminal_key_for_every_end():
    ends = (events.succeeded(), events.failed("why"), events.cancelled())
    assert {event.idempotency_key for event in ends} == {"terminal"}
    assert events.failed("why").level == "error"


def test_data_as_recorded():
    assert events.started(2, 0).data is None
    assert events.succeeded().data == {}
    data = {"step": 290, "total_steps": 303, "train_loss": 0.1234, "valid_loss": 0.5, "full_valid_loss": 2.0}
    step = events.step(data, 7.0)
    assert (step.message, step.type, step.data, step.created_at) == (
        "Step 290/303: training loss=0.12, validation loss=0.50, full validation loss=2.00", "metrics", data, 7.0,
    )  # fmt: skip


def test_the_result_file_has_openais_columns_first_and_empty_cells():
    lines = b"".join(results_csv([(1, {"train_loss": 0.5, "train_mean_token_accuracy": 1, "valid_loss": None})])).decode()
    header, row = lines.splitlines()
    assert header.split(",")[:5] == ["step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy"]
    assert row == "1,0.50000,1,,,1,,"
    assert len(header.split(",")) == len(COLUMNS) == len(row.split(","))
