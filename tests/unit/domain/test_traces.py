"""A job's life as its trace tells it."""

from dataclasses import replace

from tunesmith.domain.job import Job
from tunesmith.domain.states import Status
from tunesmith.domain.traces import Work, life

JOB = Job(
    id="ftjob-a", project_id="p", organization_id="o", model="nano", base="nano", start_adapter=None, training_file="f",
    validation_file=None, suffix=None, seed=1, method="dpo", method_config={}, resolved=None, integrations=[], metadata=None,
    created_at=100.0, queued_at=101.0, started_at=105.0, finished_at=140.0, status=Status.SUCCEEDED, trained_tokens=7,
)  # fmt: skip


def phases(job: Job, *works: Work) -> list[tuple[str, float, float]]:
    return [(phase.name, phase.start, phase.end) for phase in life(job, works).phases]


def test_one_that_succeeded_has_every_phase_and_each_attempt() -> None:
    works = (Work(0, 100.0, 100.0, 0), Work(1, 100.5, 101.0, 0), Work(2, 106.0, 116.0, 4), Work(3, 120.0, 139.0, 10))
    assert phases(JOB, *works) == [
        ("validate", 100.0, 101.0), ("queue", 101.0, 105.0), ("train", 106.0, 116.0), ("train", 120.0, 139.0),
        ("publish", 139.0, 140.0),
    ]  # fmt: skip
    told = life(JOB, works)
    assert told.phases[2].attributes == {"tunesmith.attempt": 2, "tunesmith.steps": 4, "tunesmith.step_seconds": 2.5}
    assert (told.whole.attributes["tunesmith.trained_tokens"], told.error) == (7, None)


def test_one_that_failed_before_it_was_queued_has_only_begun() -> None:
    failed = replace(
        JOB, status=Status.FAILED, queued_at=100.0, started_at=None, finished_at=103.0, error={"message": "no rows"}
    )
    assert phases(failed) == [("validate", 100.0, 103.0)]
    assert life(failed, []).error == "no rows"
