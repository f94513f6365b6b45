"""The scheduler's mind, pure: from what the rows say and what still lives, what is to be done next.

`step(state, seen) -> (state, effects)`. It knows no clock, no process and no database; the scheduler shows it the rows and
carries out what it says, and an effect that was lost on the way is said again at the next step.

An attempt *occupies* its job from its start until its processes are confirmed gone (`released_at`). Only then is its slot
free, and only then can the job be started again, so two attempts of one job never live at the same time. Attempts outlive
the server that started them: the next one goes on with those that live.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from tunesmith.core.channel import LEASE_EXPIRED
from tunesmith.domain.job import Job
from tunesmith.domain.ports import Handle, Outcome
from tunesmith.domain.queue import LONGEST_BACKOFF_S, Limits, Load, Reason, in_backoff, reason
from tunesmith.domain.states import TERMINAL, Desired, Status

#: An attempt that reported its end by itself leaves within this time, or is killed.
LEAVING_S: Final = 5.0
#: A training that was asked to pause reaches a step boundary and writes its checkpoint within this time, or is killed.
PAUSE_GRACE_S: Final = 60.0
#: A supervisor that was told to kill its tree and still lives after this time is swept away, its tree with it.
STUBBORN_S: Final = 1.0
#: Between steps: when nothing happens, while something is dying (a look costs as much as an answer, and those who cancel
#: wait for answers), and when a step's effects have made the next one possible.
CALM_S: Final = 0.5
DYING_S: Final = 0.05
FOLLOWING_S: Final = 0.002
#: Wait before a lost job's next start: this, doubled with every further loss, up to `queue.LONGEST_BACKOFF_S`.
BACKOFF_S: Final = 1.0
#: Jobs that are told at one step why they wait; more would keep those waiting who want to be cancelled.
N_TOLD: Final = 8

Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class State:
    """What the scheduler remembers between steps; all of it may be forgotten in a restart."""

    #: Attempts that this server started or saw alive: if one of them is gone, its worker was lost, and not while no server
    #: was there.
    known: frozenset[Key] = frozenset()
    #: Dead attempts whose last reports were taken from their spool.
    settled: frozenset[Key] = frozenset()
    #: Since when (monotonic seconds) an attempt was seen that is to pause.
    pausing: Mapping[Key, float] = field(default_factory=dict[Key, float])
    #: Since when (monotonic seconds) an attempt that is not wanted was seen alive.
    leaving: Mapping[Key, float] = field(default_factory=dict[Key, float])
    #: When (monotonic seconds) the backoff of jobs that this server sent back to the queue ends.
    due: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """What the scheduler sees at one moment."""

    #: Unix seconds, which may step back and forth; and seconds that only go on, of this process alone.
    now: float
    monotonic: float
    #: Every job whose latest attempt occupies it.
    occupied: tuple[Job, ...]
    #: Jobs that wait for their validation, and for their training, in the order in which they are to start.
    to_validate: tuple[Job, ...]
    to_train: tuple[Job, ...]
    #: Ids of occupied jobs whose supervisor lives.
    alive: frozenset[str]
    #: Ids of jobs of which some process still carries the tag.
    strays: frozenset[str]
    #: How ended attempts ended, by job id; a supervisor that was killed leaves nothing.
    outcomes: Mapping[str, Outcome]
    limits: Limits
    #: The first queued jobs whose events do not tell yet why they wait.
    untold: tuple[Job, ...] = ()
    #: Supervisors that live although no row knows them, by job id: their server died before it could note them.
    unnoted: Mapping[str, Handle] = field(default_factory=dict[str, Handle])


@dataclass(frozen=True, slots=True)
class Start:
    """Claim the job with its next attempt and place it."""

    job_id: str
    kind: str
    #: The attempt that the row must still have for the claim to hold.
    attempt: int


@dataclass(frozen=True, slots=True)
class Adopt:
    """Note the place of an attempt that lives and of which the row has none."""

    job_id: str
    attempt: int
    handle: Handle


@dataclass(frozen=True, slots=True)
class Stop:
    """Tell the attempt's supervisor to kill its tree."""

    job_id: str
    handle: Handle


@dataclass(frozen=True, slots=True)
class Sweep:
    """Kill whatever still carries the job's tag."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Settle:
    """Take the reports that the dead attempt could not deliver; the row may be another one after it."""

    job_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Release:
    """The attempt is gone and its job has moved on: free the slot."""

    job_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Requeue:
    """The attempt was lost: free the slot and let the job start again, not before a time."""

    job_id: str
    attempt: int
    lost_attempts: int
    not_before: float
    reason: str


@dataclass(frozen=True, slots=True)
class Pause:
    """The attempt is gone and its job was to pause: free the slot, the job rests at its last checkpoint."""

    job_id: str
    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class Fail:
    """The attempt was lost and there is no use in another: free the slot, the job has failed."""

    job_id: str
    attempt: int
    lost_attempts: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell the owner of a queued job what it waits for."""

    job_id: str
    attempt: int
    reason: Reason


Effect = Start | Adopt | Stop | Sweep | Settle | Release | Requeue | Pause | Fail | Tell


def step(state: State, seen: Seen) -> tuple[State, list[Effect]]:
    """Decide what to do now. Safe to repeat: what was carried out is seen in the rows of the next step."""
    present = {_key(job) for job in seen.occupied}
    # cancel raises the row's attempt: a remembered attempt of an occupied job stays remembered through that
    occupied_ids = {job.id for job in seen.occupied}
    pausing = {_key(job): state.pausing.get(_key(job), seen.monotonic) for job in seen.occupied if _to_pause(job)}
    leaving: dict[Key, float] = {}
    settled = set(state.settled & present)
    effects: list[Effect] = []
    for job in seen.occupied:
        key = _key(job)
        if job.id in seen.alive:
            if not _wanted(job) and seen.monotonic - pausing.get(key, -math.inf) >= PAUSE_GRACE_S:
                effects += _see_off(job, state, seen, leaving)
        elif job.id in seen.unnoted and _awaited(job):
            effects.append(Adopt(*key, seen.unnoted[job.id]))
        elif job.id in seen.strays:
            effects.append(Sweep(job.id))
        elif key not in settled:
            settled.add(key)
            effects.append(Settle(*key))
        else:
            effects.append(_bury(job, state, seen))
    starts = _starts(seen)
    known = {key for key in state.known if key[0] in occupied_ids}
    known |= {_key(job) for job in seen.occupied if job.id in seen.alive}
    known |= {(start.job_id, start.attempt + 1) for start in starts}
    to_end = seen.monotonic - seen.now + FOLLOWING_S  # a hair later: the two clocks are not read at the same moment
    sent_back = [effect.not_before + to_end for effect in effects if isinstance(effect, Requeue)]
    due = (*(end for end in state.due if end > seen.monotonic), *sent_back)
    after = State(known=frozenset(known), settled=frozenset(settled), pausing=pausing, leaving=leaving, due=due)
    return after, [*effects, *starts, *_tells(seen, starts)]


def _key(job: Job) -> Key:
    return job.id, job.attempt


def _awaited(job: Job) -> bool:
    """Say whether the job waits for its attempt's result. A validation that was paused is fenced off and has no token."""
    return job.status in (Status.VALIDATING_FILES, Status.RUNNING) and job.token_sha256 is not None


def _wanted(job: Job) -> bool:
    """Say whether the attempt is to go on."""
    return _awaited(job) and job.desired is Desired.RUN


def _to_pause(job: Job) -> bool:
    """Say whether the attempt is to write a checkpoint and leave."""
    return _awaited(job) and job.desired is Desired.PAUSE


def _see_off(job: Job, state: State, seen: Seen, leaving: dict[Key, float]) -> Iterable[Effect]:
    since = leaving[_key(job)] = state.leaving.get(_key(job), seen.monotonic)
    patience_s = LEAVING_S if _ended_by_itself(job) else 0.0
    if seen.monotonic - since < patience_s or job.handle is None:
        return
    yield Stop(job.id, Handle(**job.handle))
    if seen.monotonic - since >= patience_s + STUBBORN_S:
        yield Sweep(job.id)


def _ended_by_itself(job: Job) -> bool:
    """Say whether the attempt reported its own end, so that it is about to leave: one that was fenced off is not."""
    ended = job.status in (Status.QUEUED, Status.PAUSED, Status.SUCCEEDED, Status.FAILED)
    return ended and job.token_sha256 is not None


def _bury(job: Job, state: State, seen: Seen) -> Effect:
    """Decide about an attempt that is gone with everything it had to say."""
    if not _awaited(job):
        return Release(*_key(job))
    if job.desired is Desired.PAUSE:
        return Pause(*_key(job), _why_short(job, state, seen))
    outcome = seen.outcomes.get(job.id)
    if _key(job) not in state.known and (outcome is None or outcome.killed):
        away = _reason(outcome) if outcome is not None and outcome.cause == LEASE_EXPIRED else _AWAY
        return Requeue(*_key(job), job.lost_attempts, seen.now, away)
    lost_attempts = job.lost_attempts + 1
    reason = _NOT_STARTED if job.handle is None and outcome is None else _reason(outcome)
    if outcome is not None and outcome.out_of_memory:
        return Fail(*_key(job), lost_attempts, "out_of_memory", f"{reason}. {_LESS_MEMORY}")
    if lost_attempts >= seen.limits.max_attempts:
        attempts = "once" if lost_attempts == 1 else f"{lost_attempts} times"
        code = outcome.cause if outcome is not None and outcome.cause == LEASE_EXPIRED else "worker_lost"
        return Fail(*_key(job), lost_attempts, code, f"{reason}. The job lost its worker {attempts} and is given up.")
    backoff_s = min(LONGEST_BACKOFF_S, BACKOFF_S * 2 ** (lost_attempts - 1))
    return Requeue(*_key(job), lost_attempts, seen.now + backoff_s, reason)


def _why_short(job: Job, state: State, seen: Seen) -> str:
    """Return why an attempt was gone before it had paused."""
    if _key(job) not in state.known and job.id not in seen.outcomes:
        return _AWAY
    if seen.monotonic - state.pausing.get(_key(job), seen.monotonic) >= PAUSE_GRACE_S:
        return f"The worker did not pause within {PAUSE_GRACE_S:.0f} s and was killed"
    return _reason(seen.outcomes.get(job.id))


_LESS_MEMORY: Final = "Use a smaller batch_size, shorter examples or a smaller base model."


_AWAY: Final = "The worker was gone when the server came back"
_NOT_STARTED: Final = "No worker could be started (the server's log tells why)"


def _reason(outcome: Outcome | None) -> str:
    if outcome is None:
        return "The worker and its supervisor were killed"
    if outcome.cause == LEASE_EXPIRED:
        return "The worker could not reach the server any more and ended itself: its lease had expired"
    if outcome.out_of_memory:
        return "The worker was killed, and the kernel told of a kill because memory ran out"
    if outcome.signal is not None:
        return f"The worker was killed by signal {outcome.signal}"
    return f"The worker ended without a result, exit code {outcome.exit_code}"


def _starts(seen: Seen) -> list[Start]:
    """Fill the free slots in the order of the queues; an occupied job holds the slot of its last attempt's kind."""
    n_training = sum(is_training(job) for job in seen.occupied)
    n_validating = len(seen.occupied) - n_training
    train = _first(_within_limits(seen.to_train, seen), seen, seen.limits.training_slots - n_training)
    validate = _first(seen.to_validate, seen, seen.limits.validation_slots - n_validating)
    return [
        *(Start(job.id, "validate", job.attempt) for job in validate),
        *(Start(job.id, "train", job.attempt) for job in train),
    ]


def _first(waiting: Iterable[Job], seen: Seen, n_free: int) -> list[Job]:
    return [job for job in waiting if _ready(job, seen)][: max(0, n_free)]


def _ready(job: Job, seen: Seen) -> bool:
    return (
        all(job.id != other.id for other in seen.occupied)
        and not in_backoff(job, seen.now)
        and job.desired is Desired.RUN
        and job.status not in TERMINAL
    )


def _within_limits(waiting: Iterable[Job], seen: Seen) -> Iterable[Job]:
    """Pass over the jobs whose project would have more trainings than it may; those behind them go before."""
    n_of_project = n_trainings(seen.occupied)
    for job in waiting:
        if not _ready(job, seen):
            continue
        n_of_project[job.project_id] += 1
        most = seen.limits.of_project(job.project_id)
        if most is None or n_of_project[job.project_id] <= most:
            yield job


def _tells(seen: Seen, starts: Iterable[Start]) -> list[Tell]:
    """Tell jobs why they wait: each when it begins to, and those whose turn is near when the reason changes."""
    gone = {start.job_id for start in starts}
    waiting = {job.id: job for job in (*seen.to_train, *seen.untold) if job.status is Status.QUEUED}
    began = [job for job in seen.to_train if job.id in gone]
    n_training = sum(is_training(job) for job in seen.occupied) + len(began)
    n_of_project = n_trainings(seen.occupied) + Counter(job.project_id for job in began)
    tells: list[Tell] = []
    for job in waiting.values():
        if job.id in gone or job.desired is not Desired.RUN or any(job.id == other.id for other in seen.occupied):
            continue
        why = reason(job, Load(n_training, n_of_project[job.project_id], 0, 0), seen.limits, seen.now)
        if why is not None and why != job.waiting_for:
            tells.append(Tell(job.id, job.attempt, why))
    return tells[:N_TOLD]


def n_trainings(occupied: Iterable[Job]) -> Counter[str]:
    """Return how many training slots each project holds."""
    return Counter(job.project_id for job in occupied if is_training(job))


def is_training(job: Job) -> bool:
    """Say whether the attempt that occupies the job is a training: validation comes before the first start, never after."""
    return job.started_at is not None


def rest_s(state: State, effects: Iterable[Effect], monotonic: float) -> float:
    """Return how long the step after one at `monotonic` may wait unless something wakes it."""
    if any(isinstance(effect, Adopt | Settle | Release | Requeue | Pause | Fail) for effect in effects):
        return FOLLOWING_S
    if any(isinstance(effect, Tell) for effect in effects):
        return DYING_S  # more may wait to be told
    if state.leaving or any(isinstance(effect, Sweep) for effect in effects):
        return DYING_S
    return min(CALM_S, max(FOLLOWING_S, min(state.due, default=math.inf) - monotonic))


def undone(state: State, failed: Iterable[Effect]) -> State:
    """Return the state after effects that could not be carried out: what they promised has not happened."""
    unsettled = {(effect.job_id, effect.attempt) for effect in failed if isinstance(effect, Settle)}
    return replace(state, settled=state.settled - unsettled)
