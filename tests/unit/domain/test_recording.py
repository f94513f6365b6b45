"""What a tracker is told of a job: tags, configuration, numbers by their names."""

from dataclasses import replace

from tunesmith.domain.job import Job
from tunesmith.domain.recording import Recording, numbers, run_of, stage, summary_of
from tunesmith.domain.states import Status

JOB = Job(
    id="ftjob-x", project_id="p", organization_id="o", model="ft:nano:o::abc", base="nano", start_adapter=None,
    training_file="file-t", validation_file="file-v", suffix=None, seed=7, method="dpo",
    method_config={"hyperparameters": {"beta": "auto", "n_epochs": 2}}, resolved={"beta": 0.1}, integrations=[],
    metadata=None, created_at=1.0,
)  # fmt: skip


def _recording(**target: object) -> Recording:
    return Recording("ftjob-x", 0, "p", "o", "wandb", dict(target))


def test_a_run_has_the_published_tags_first_and_each_once_and_none_too_long():
    run = run_of(JOB, _recording(project="q", tags=["a", "openai/finetune", "t" * 64]), secret="k", base_url=None)
    assert run.tags == ["openai/finetune", "openai/nano", "openai/ftjob-x", "a", "t" * 64]
    long = replace(JOB, base="b" * 70)
    assert all(len(tag) <= 64 for tag in run_of(long, _recording(project="q"), secret=None, base_url=None).tags)


def test_a_run_is_called_by_its_job_unless_it_has_a_name_and_is_configured_as_the_job_is():
    assert run_of(JOB, _recording(project="q", name=None), secret=None, base_url=None).name == "ftjob-x"
    run = run_of(JOB, _recording(project="q", name="mine", entity="team"), secret=None, base_url=None)
    assert (run.name, run.entity, run.project) == ("mine", "team", "q")
    assert run.config == {
        "model": "ft:nano:o::abc", "training_file": "file-t", "validation_file": "file-v", "seed": 7,
        "hyperparameters": {"beta": 0.1, "n_epochs": 2},
    }  # fmt: skip


def test_numbers_are_found_by_their_way_and_those_of_graders_as_in_the_result_file():
    grader = {"name": "a b", "type": "python", "train_reward_mean": 0.5, "other": 1}
    data = {
        "step": 1,
        "none": None,
        "on": True,
        "text": "x",
        "timing": {"step": {"eval": 2}},
        "scores": {"graders": [grader]},
    }
    assert numbers(data) == {
        "step": 1.0, "timing/step/eval": 2.0, "scores/graders/python/a b/train_reward_mean": 0.5
    }  # fmt: skip


def test_a_summary_has_what_there_is_to_say():
    assert summary_of(replace(JOB, status=Status.CANCELLED)) == {"status": "cancelled"}
    failed = replace(JOB, status=Status.FAILED, error={"code": "diverged", "message": "It did."})
    assert summary_of(failed) == {"status": "failed", "error": "It did."}


def test_every_status_is_a_stage():
    assert {str(status): stage(status) for status in Status} == {
        "validating_files": "waits", "queued": "waits", "running": "trains", "paused": "rests",
        "succeeded": "ended", "failed": "ended", "cancelled": "ended",
    }  # fmt: skip
