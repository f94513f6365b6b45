from dataclasses import replace

import pytest

from tunesmith.domain.job import Job
from tunesmith.domain.queue import Limits, Load, Reason, place, reason, waits
from tunesmith.domain.reconcile import DYING_S, N_TOLD, Seen, Start, State, Tell, rest_s, step
from tunesmith.domain.states import TERMINAL, Desired, Status

LIMITS = Limits(training_slots=3, validation_slots=1, max_attempts=3, training_slots_per_project=2)
IDLE = Load(training=0, training_of_project=0, validating=0, validating_of_project=0)


def job(name="j", project="p", **changes):
    blank = Job(
        id=name, project_id=project, organization_id="o", model="m", base="m", start_adapter=None, training_file="f",
        validation_file=None, suffix=None, seed=1, method="supervised", method_config={}, resolved=None, integrations=[],
        metadata=None, created_at=0.0,
    )  # fmt: skip
    return replace(blank, **changes)


def queued(name="q", project="p", **changes):
    return job(name, project, **{"status": Status.QUEUED, "attempt": 1, "released_at": 1.0, "queued_at": 1.0, **changes})


def running(name, project="p"):
    handle = {"pid": 7, "start_time": 99, "boot_id": "b"}
    return job(name, project, status=Status.RUNNING, attempt=2, handle=handle, started_at=5.0, token_sha256="t")


def decided(occupied=(), to_train=(), untold=(), limits=LIMITS):
    own = State(known=frozenset((each.id, each.attempt) for each in occupied))
    look = Seen(
        now=100.0, monotonic=100.0, occupied=occupied, to_validate=(), to_train=to_train,
        alive=frozenset(each.id for each in occupied), strays=frozenset(), outcomes={}, limits=limits, untold=untold,
    )  # fmt: skip
    return step(own, look)


def effects(**look):
    return decided(**look)[1]


@pytest.mark.parametrize(
    ("changes", "load", "expected"),
    [
        ({}, IDLE, None),
        ({}, replace(IDLE, training=2, training_of_project=1), None),
        ({}, replace(IDLE, training=3), Reason.TRAINING_SLOTS),
        ({}, replace(IDLE, training=2, training_of_project=2), Reason.PROJECT_LIMIT),
        ({}, replace(IDLE, training=3, training_of_project=2), Reason.PROJECT_LIMIT),
        ({"not_before": 100.5}, replace(IDLE, training=3, training_of_project=2), Reason.BACKOFF),
        ({"not_before": 100.0}, IDLE, None),
        ({"not_before": 3700.0}, IDLE, None),  # the clock was an hour ahead when this was written
        ({"status": Status.VALIDATING_FILES}, replace(IDLE, training=3, training_of_project=2), None),
        ({"status": Status.VALIDATING_FILES}, replace(IDLE, validating=1), Reason.VALIDATION_SLOTS),
        ({"status": Status.VALIDATING_FILES, "not_before": 101.0}, IDLE, Reason.BACKOFF),
    ],
)
def test_what_a_job_waits_for(changes, load, expected):
    assert reason(queued(**changes), load, LIMITS, 100.0) is expected


def test_without_a_limit_of_its_own_a_project_may_take_every_slot():
    limits = replace(LIMITS, training_slots_per_project=None)
    assert reason(queued(), replace(IDLE, training=2, training_of_project=2), limits, 100.0) is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"attempt": 2, "released_at": None, "token_sha256": "t"}, True),
        ({"desired": Desired.PAUSE}, False),
        ({"status": Status.RUNNING}, False),
        ({"status": Status.PAUSED}, False),
        ({"status": Status.VALIDATING_FILES, "attempt": 0, "released_at": None}, True),
        ({"status": Status.VALIDATING_FILES}, True),
        ({"status": Status.VALIDATING_FILES, "released_at": None, "token_sha256": "t"}, False),
        ({"status": Status.VALIDATING_FILES, "released_at": None}, True),
    ],
    ids=[
        "queued", "its worker is leaving", "pause wanted", "running", "paused", "new", "validated again", "at work",
        "paused at work and resumed",
    ],
)  # fmt: skip
def test_who_waits(changes, expected):
    assert waits(queued(**changes)) is expected


@pytest.mark.parametrize(
    ("changes", "n_ahead", "load", "message"),
    [
        ({}, 0, replace(IDLE, training=3), "All 3 training slots are in use; no job is before it."),
        ({}, 1, replace(IDLE, training_of_project=2), "Its project has 2 running jobs, its limit; 1 job is before it."),
        ({"status": Status.VALIDATING_FILES}, 1234, replace(IDLE, validating=1),
         "The only validation slot is in use; 1,234 jobs are before it."),
        ({"not_before": 101.5}, 2, IDLE,
         "Its last worker was lost, and it starts again in 2 s at the earliest; 2 jobs are before it."),
        ({}, 0, IDLE,
         "It starts as soon as its turn has come and nothing of its last attempt is left; no job is before it."),
    ],
)  # fmt: skip
def test_a_waiting_jobs_place_is_said_in_a_sentence(changes, n_ahead, load, message):
    found = place(queued(**changes), n_ahead, load, LIMITS, 100.0)
    assert (found.n_ahead, found.message) == (n_ahead, message)
    assert found.not_before == changes.get("not_before")


@pytest.mark.parametrize("status", [Status.RUNNING, Status.PAUSED, *sorted(TERMINAL)])
def test_a_job_that_does_not_wait_has_no_place(status):
    found = place(queued(status=status), 5, replace(IDLE, training=3), LIMITS, 100.0)
    assert (found.n_ahead, found.reason, found.not_before) == (None, None, None)
    assert status in found.message


def test_a_validation_at_work_has_no_place():
    found = place(job(attempt=1, token_sha256="t"), 5, replace(IDLE, validating=1), LIMITS, 100.0)
    assert (found.n_ahead, found.message) == (None, "Its files are being validated.")


def test_a_project_at_its_limit_is_passed_over_and_each_is_told_why_it_waits():
    look = {"occupied": (running("a0", "a"),), "to_train": (queued("a1", "a"), queued("a2", "a"), queued("b1", "b"))}
    assert effects(**look) == [Start("a1", "train", 1), Start("b1", "train", 1), Tell("a2", 1, Reason.PROJECT_LIMIT)]
    look["limits"] = replace(LIMITS, training_slots=2)
    assert effects(**look) == [
        Start("a1", "train", 1), Tell("a2", 1, Reason.PROJECT_LIMIT), Tell("b1", 1, Reason.TRAINING_SLOTS),
    ]  # fmt: skip


def test_between_projects_under_their_limit_the_first_come_is_the_first_to_start():
    waiting = (queued("a1", "a"), queued("b1", "b"), queued("a2", "a"), queued("c1", "c"))
    assert [effect.job_id for effect in effects(to_train=waiting) if isinstance(effect, Start)] == ["a1", "b1", "a2"]


def test_a_job_in_backoff_and_one_that_is_occupied_take_nothing_of_their_projects_limit():
    leaving = queued("a0", "a", released_at=None, handle={"pid": 7, "start_time": 99, "boot_id": "b"}, token_sha256="t")
    later = queued("a1", "a", not_before=100.5)
    look = {"occupied": (leaving,), "to_train": (leaving, later, queued("a2", "a"), queued("a3", "a"))}
    assert effects(**look) == [
        Start("a2", "train", 1), Start("a3", "train", 1), Tell("a1", 1, Reason.BACKOFF),
    ]  # fmt: skip


def test_a_reason_is_told_once_and_again_when_it_changes():
    full = (running("r1", "b"), running("r2", "c"), running("r3", "d"))
    assert effects(occupied=full, to_train=(queued("a"),)) == [Tell("a", 1, Reason.TRAINING_SLOTS)]
    assert effects(occupied=full, to_train=(queued("a", waiting_for="training_slots"),)) == []
    assert effects(occupied=full, to_train=(queued("a", waiting_for="backoff"),)) == [Tell("a", 1, Reason.TRAINING_SLOTS)]


def test_those_far_behind_are_told_too_a_few_at_a_time():
    full = (running("r1", "b"), running("r2", "c"), running("r3", "d"))
    first, many = queued("q0"), tuple(queued(f"q{n}") for n in range(N_TOLD))
    after, told = decided(occupied=full, to_train=(first,), untold=many)
    assert told == [Tell(f"q{n}", 1, Reason.TRAINING_SLOTS) for n in range(N_TOLD)]
    assert rest_s(after, told, 100.0) == DYING_S, "the others are not to wait for long"
    after, told = decided(occupied=full)
    assert rest_s(after, told, 100.0) > DYING_S
