from dataclasses import replace

import pytest

from tunesmith.domain.job import Job
from tunesmith.domain.ports import Handle, Outcome
from tunesmith.domain.queue import Reason
from tunesmith.domain.reconcile import (
    CALM_S,
    DYING_S,
    FOLLOWING_S,
    LEAVING_S,
    PAUSE_GRACE_S,
    STUBBORN_S,
    Adopt,
    Fail,
    Limits,
    Pause,
    Release,
    Requeue,
    Seen,
    Settle,
    Start,
    State,
    Stop,
    Sweep,
    Tell,
    rest_s,
    step,
    undone,
)
from tunesmith.domain.states import Desired, Status

HANDLE = {"pid": 7, "start_time": 99, "boot_id": "b"}


def job(name="j", **changes):
    blank = Job(
        id=name, project_id="p", organization_id="o", model="m", base="m", start_adapter=None, training_file="f",
        validation_file=None, suffix=None, seed=1, method="supervised", method_config={}, resolved=None, integrations=[],
        metadata=None, created_at=0.0,
    )  # fmt: skip
    return replace(blank, **changes)


def running(name="j", **changes):
    settled = {"status": Status.RUNNING, "attempt": 2, "handle": HANDLE, "started_at": 5.0, "token_sha256": "t"}
    return job(name, **{**settled, **changes})


def validating(name="j", **changes):
    return job(name, **{"attempt": 1, "handle": HANDLE, "token_sha256": "t", **changes})


def seen(**changes):
    nothing = Seen(
        now=100.0, monotonic=100.0, occupied=(), to_validate=(), to_train=(), alive=frozenset(), strays=frozenset(),
        outcomes={}, limits=Limits(training_slots=1, validation_slots=2, max_attempts=3),
    )  # fmt: skip
    return replace(nothing, **changes)


OWN = State(known=frozenset({("j", 2), ("j", 1)}))
SETTLED = replace(OWN, settled=frozenset({("j", 2), ("j", 1)}))


def test_nothing_to_do():
    state, effects = step(State(), seen())
    assert effects == []
    assert rest_s(state, effects, 100.0) == CALM_S


def test_validations_and_trainings_start_in_order_within_their_slots():
    waiting = tuple(job(f"v{n}", created_at=n) for n in range(3))
    queued = tuple(job(f"q{n}", status=Status.QUEUED, attempt=1, released_at=1.0, queued_at=n) for n in range(3))
    state, effects = step(State(), seen(to_validate=waiting, to_train=queued))
    assert effects == [
        Start("v0", "validate", 0), Start("v1", "validate", 0), Start("q0", "train", 1),
        Tell("q1", 1, Reason.TRAINING_SLOTS), Tell("q2", 1, Reason.TRAINING_SLOTS),
    ]  # fmt: skip
    assert state.known == {("v0", 1), ("v1", 1), ("q0", 2)}


def test_an_attempt_holds_its_slot_until_it_is_released():
    queued = job("q", status=Status.QUEUED, attempt=1, released_at=1.0)
    cancelled = running(status=Status.CANCELLED, attempt=3)
    for alive in (frozenset({"j"}), frozenset[str]()):
        _, effects = step(OWN, seen(occupied=(cancelled,), to_train=(queued,), alive=alive))
        assert not any(isinstance(effect, Start) for effect in effects)
    _, effects = step(State(), seen(to_train=(queued,)))
    assert effects == [Start("q", "train", 1)]


def test_a_validation_takes_no_training_slot():
    queued = job("q", status=Status.QUEUED, attempt=1, released_at=1.0)
    _, effects = step(OWN, seen(occupied=(validating(),), to_train=(queued,), alive=frozenset({"j"})))
    assert effects == [Start("q", "train", 1)]


@pytest.mark.parametrize(
    "waiting",
    [
        job("q", status=Status.QUEUED, not_before=100.5, waiting_for="backoff"),
        job("q", status=Status.QUEUED, desired=Desired.PAUSE),
        job("q", status=Status.CANCELLED),
        running("j"),
    ],
    ids=["too early", "pause wanted", "terminal", "occupied"],
)
def test_a_job_that_may_not_start_does_not(waiting):
    _, effects = step(OWN, seen(occupied=(running(),), alive=frozenset({"j"}), to_train=(waiting,), limits=Limits(5, 5, 3)))
    assert effects == []


def test_a_wanted_attempt_is_left_alone():
    state, effects = step(OWN, seen(occupied=(running(),), alive=frozenset({"j"})))
    assert effects == []
    assert rest_s(state, effects, 100.0) == CALM_S


def test_a_cancelled_attempt_is_stopped_at_every_look_and_swept_when_it_resists():
    cancelled = running(status=Status.CANCELLED, desired=Desired.CANCEL, attempt=3)
    state, effects = step(OWN, seen(occupied=(cancelled,), alive=frozenset({"j"})))
    assert effects == [Stop("j", Handle(**HANDLE))]
    assert rest_s(state, effects, 100.0) == DYING_S
    state, effects = step(state, seen(monotonic=100.0 + STUBBORN_S / 2, occupied=(cancelled,), alive=frozenset({"j"})))
    assert effects == [Stop("j", Handle(**HANDLE))]
    _, effects = step(state, seen(monotonic=100.0 + STUBBORN_S, occupied=(cancelled,), alive=frozenset({"j"})))
    assert effects == [Stop("j", Handle(**HANDLE)), Sweep("j")]


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED])
def test_an_attempt_that_told_its_end_may_leave_by_itself(status):
    ended = running(status=status)
    state, effects = step(OWN, seen(occupied=(ended,), alive=frozenset({"j"})))
    assert effects == []
    assert rest_s(state, effects, 100.0) == DYING_S
    _, effects = step(state, seen(monotonic=100.0 + LEAVING_S, occupied=(ended,), alive=frozenset({"j"})))
    assert effects == [Stop("j", Handle(**HANDLE))]


def test_an_older_servers_attempt_that_lives_is_this_servers_from_now_on():
    for status in (Status.RUNNING, Status.SUCCEEDED):
        state, effects = step(State(), seen(occupied=(running(status=status),), alive=frozenset({"j"})))
        assert (effects, state.known) == ([], {("j", 2)})
    lost = replace(state, settled=state.known)
    _, effects = step(lost, seen(occupied=(running(),)))
    assert effects == [Requeue("j", 2, 1, 101.0, "The worker and its supervisor were killed")]


def test_the_end_of_a_backoff_is_slept_to_and_not_past():
    state, effects = step(SETTLED, seen(occupied=(running(),)))
    assert isinstance(effects[0], Requeue)
    assert rest_s(state, effects, 100.0) == FOLLOWING_S
    state, effects = step(state, seen(monotonic=100.4))
    assert rest_s(state, effects, 100.4) == CALM_S
    state, effects = step(state, seen(monotonic=100.9))
    assert 0.1 < rest_s(state, effects, 100.9) < 0.11
    state, effects = step(state, seen(monotonic=101.1))
    assert (rest_s(state, effects, 101.1), state.due) == (CALM_S, ())


def test_an_attempt_whose_place_its_server_could_not_note_is_adopted():
    found = {"j": Handle(**HANDLE)}
    claimed = running(handle=None)
    state, effects = step(State(), seen(occupied=(claimed,), strays=frozenset({"j"}), unnoted=found))
    assert effects == [Adopt("j", 2, Handle(**HANDLE))]
    assert rest_s(state, effects, 100.0) == FOLLOWING_S
    cancelled = running(status=Status.CANCELLED, handle=None)
    _, effects = step(State(), seen(occupied=(cancelled,), strays=frozenset({"j"}), unnoted=found))
    assert effects == [Sweep("j")]


def test_a_dead_supervisor_with_living_orphans_frees_nothing():
    _, effects = step(OWN, seen(occupied=(running(),), strays=frozenset({"j"})))
    assert effects == [Sweep("j")]


def test_the_last_reports_are_taken_before_a_job_is_judged():
    state, effects = step(OWN, seen(occupied=(running(),)))
    assert effects == [Settle("j", 2)]
    assert rest_s(state, effects, 100.0) == FOLLOWING_S
    forgetful = undone(state, effects)
    assert step(forgetful, seen(occupied=(running(),)))[1] == [Settle("j", 2)]
    _, effects = step(state, seen(occupied=(running(status=Status.SUCCEEDED),)))
    assert effects == [Release("j", 2)]


def test_a_finished_validation_frees_the_job_for_training():
    done = validating(status=Status.QUEUED, queued_at=9.0)
    assert step(SETTLED, seen(occupied=(done,)))[1] == [Release("j", 1)]


def test_a_cancelled_job_that_was_never_placed_is_released():
    never = job(status=Status.CANCELLED, attempt=1)
    state, effects = step(State(), seen(occupied=(never,)))
    assert effects == [Settle("j", 1)]
    assert step(state, seen(occupied=(never,)))[1] == [Release("j", 1)]


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (None, "The worker and its supervisor were killed"),
        (Outcome(None, 9), "The worker was killed by signal 9"),
        (Outcome(0, None), "The worker ended without a result, exit code 0"),
    ],
)
def test_a_lost_attempt_is_requeued_with_growing_patience(outcome, reason):
    outcomes = {"j": outcome} if outcome else {}
    _, effects = step(SETTLED, seen(occupied=(running(),), outcomes=outcomes))
    assert effects == [Requeue("j", 2, 1, 101.0, reason)]
    _, effects = step(SETTLED, seen(occupied=(running(lost_attempts=1),), outcomes=outcomes))
    assert effects == [Requeue("j", 2, 2, 102.0, reason)]


def test_an_attempt_that_never_got_a_process_is_told_as_such():
    _, (effect,) = step(SETTLED, seen(occupied=(running(handle=None),)))
    assert effect == Requeue("j", 2, 1, 101.0, "No worker could be started (the server's log tells why)")


def test_patience_has_an_end():
    limits = Limits(1, 1, 100)
    _, effects = step(SETTLED, seen(occupied=(running(lost_attempts=50),), limits=limits))
    assert effects == [Requeue("j", 2, 51, 160.0, "The worker and its supervisor were killed")]


def test_the_last_lost_attempt_fails_the_job():
    _, (effect,) = step(SETTLED, seen(occupied=(running(lost_attempts=2),), outcomes={"j": Outcome(None, 9)}))
    assert effect == Fail(
        "j", 2, 3, "worker_lost", "The worker was killed by signal 9. The job lost its worker 3 times and is given up."
    )
    _, (effect,) = step(SETTLED, seen(occupied=(running(),), limits=Limits(1, 1, 1)))
    assert isinstance(effect, Fail)
    assert "lost its worker once" in effect.message


def test_memory_that_ran_out_once_will_run_out_again():
    _, (effect,) = step(SETTLED, seen(occupied=(running(),), outcomes={"j": Outcome(None, 9, out_of_memory=True)}))
    assert isinstance(effect, Fail)
    assert effect.code == "out_of_memory"
    assert "batch_size" in effect.message


def test_a_restarted_server_requeues_what_ran_and_counts_no_loss():
    state = State(settled=frozenset({("j", 2), ("v", 1)}))
    occupied = (running(lost_attempts=2), validating("v"))
    _, effects = step(state, seen(occupied=occupied))
    reason = "The worker was gone when the server came back"
    assert effects == [Requeue("j", 2, 2, 100.0, reason), Requeue("v", 1, 0, 100.0, reason)]
    killed = {"j": Outcome(None, 9, killed=True, cause="stopped"), "v": Outcome(None, 9, killed=True, cause="lease_expired")}
    _, effects = step(state, seen(occupied=occupied, outcomes=killed))
    lease = "The worker could not reach the server any more and ended itself: its lease had expired"
    assert effects == [Requeue("j", 2, 2, 100.0, reason), Requeue("v", 1, 0, 100.0, lease)]


def test_a_worker_that_died_by_itself_while_no_server_was_there_is_a_lost_one():
    state = State(settled=frozenset({("j", 2)}))
    _, effects = step(state, seen(occupied=(running(),), outcomes={"j": Outcome(1, None)}))
    assert effects == [Requeue("j", 2, 1, 101.0, "The worker ended without a result, exit code 1")]


def test_a_lease_that_expires_again_and_again_is_the_cause_that_is_told():
    outcomes = {"j": Outcome(None, 9, killed=True, cause="lease_expired")}
    _, (effect,) = step(SETTLED, seen(occupied=(running(lost_attempts=2),), outcomes=outcomes))
    assert isinstance(effect, Fail)
    assert (effect.code, effect.lost_attempts) == ("lease_expired", 3)
    assert effect.message.endswith("its lease had expired. The job lost its worker 3 times and is given up.")


def pausing(**changes):
    return running(desired=Desired.PAUSE, **changes)


def test_an_attempt_that_is_to_pause_has_its_time_and_is_killed_after_it():
    state, effects = step(OWN, seen(occupied=(pausing(),), alive=frozenset({"j"})))
    assert effects == []
    assert rest_s(state, effects, 100.0) == CALM_S
    late = 100.0 + PAUSE_GRACE_S
    state, effects = step(state, seen(monotonic=late - 0.1, occupied=(pausing(),), alive=frozenset({"j"})))
    assert effects == []
    state, effects = step(state, seen(monotonic=late, occupied=(pausing(),), alive=frozenset({"j"})))
    assert effects == [Stop("j", Handle(**HANDLE))]
    assert rest_s(state, effects, 100.0) == DYING_S
    state, effects = step(state, seen(monotonic=late + STUBBORN_S, occupied=(pausing(),), alive=frozenset({"j"})))
    assert effects == [Stop("j", Handle(**HANDLE)), Sweep("j")]
    state, effects = step(state, seen(monotonic=late + 2, occupied=(pausing(),)))
    assert effects == [Settle("j", 2)]
    state, effects = step(state, seen(monotonic=late + 2, occupied=(pausing(),)))
    assert effects == [Pause("j", 2, "The worker did not pause within 60 s and was killed")]
    assert rest_s(state, effects, 100.0) == FOLLOWING_S


def test_a_pause_that_is_withdrawn_and_asked_for_again_has_all_its_time():
    state, _ = step(OWN, seen(occupied=(pausing(),), alive=frozenset({"j"})))
    state, effects = step(state, seen(monotonic=150.0, occupied=(running(),), alive=frozenset({"j"})))
    assert (effects, state.pausing) == ([], {})
    state, effects = step(state, seen(monotonic=170.0, occupied=(pausing(),), alive=frozenset({"j"})))
    assert (effects, state.pausing) == ([], {("j", 2): 170.0})


@pytest.mark.parametrize(
    ("state", "outcomes", "reason"),
    [
        (SETTLED, {"j": Outcome(None, 9)}, "The worker was killed by signal 9"),
        (SETTLED, {}, "The worker and its supervisor were killed"),
        (replace(SETTLED, known=frozenset[tuple[str, int]]()), {}, "The worker was gone when the server came back"),
    ],
)
def test_an_attempt_that_is_lost_on_its_way_to_the_pause_pauses_its_job_and_counts_no_loss(state, outcomes, reason):
    assert step(state, seen(occupied=(pausing(lost_attempts=2),), outcomes=outcomes))[1] == [Pause("j", 2, reason)]


def test_an_attempt_that_told_its_pause_leaves_by_itself_and_frees_its_slot():
    paused = pausing(status=Status.PAUSED)
    queued = job("q", status=Status.QUEUED, attempt=1, released_at=1.0, waiting_for="training_slots")
    state, effects = step(OWN, seen(occupied=(paused,), alive=frozenset({"j"}), to_train=(queued,)))
    assert effects == []
    _, effects = step(state, seen(monotonic=100.0 + LEAVING_S, occupied=(paused,), alive=frozenset({"j"})))
    assert effects == [Stop("j", Handle(**HANDLE))]
    assert step(SETTLED, seen(occupied=(paused,)))[1] == [Release("j", 2)]


@pytest.mark.parametrize("status", [Status.PAUSED, Status.VALIDATING_FILES])
def test_a_validation_that_was_paused_is_killed_also_when_its_job_was_resumed_meanwhile(status):
    fenced = validating(status=status, attempt=2, token_sha256=None)
    for known in (State(known=frozenset({("j", 1)})), State()):
        _, effects = step(known, seen(occupied=(fenced,), alive=frozenset({"j"}), to_validate=(fenced,)))
        assert effects == [Stop("j", Handle(**HANDLE))]
    assert step(SETTLED, seen(occupied=(fenced,)))[1] == [Release("j", 2)]


def test_what_is_over_is_forgotten():
    state = State(
        known=frozenset({("a", 1), ("b", 1)}),
        settled=frozenset({("a", 1), ("b", 1)}),
        leaving={("a", 1): 3.0, ("b", 1): 3.0},
        pausing={("a", 1): 3.0},
    )
    assert step(state, seen())[0] == State()
