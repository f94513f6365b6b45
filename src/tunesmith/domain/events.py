"""The wording of a job's events, in OpenAI's own words where a recording has them; scripts wait for these sentences."""

from typing import Any, Final

from tunesmith.domain.job import Job, NewEvent

#: The key of the one event that ends a job; the store takes it once.
TERMINAL_KEY: Final = "terminal"

_LOSSES: Final = (
    ("training loss", "train_loss"),
    ("validation loss", "valid_loss"),
    ("full validation loss", "full_valid_loss"),
)
#: What a step's sentence says, by method: words and metric.
_TOLD: Final = {
    "supervised": _LOSSES,
    "dpo": _LOSSES,
    "reinforcement": (
        ("train mean reward", "train_mean_reward"),
        ("full validation mean reward", "full_valid_mean_reward"),
        ("full validation mean parse error", "full_valid_mean_parse_error"),
    ),
}
#: What stands between a step's number and what is said of it, where it is no colon.
_BEFORE: Final = {"reinforcement": " ,"}


def printable(text: str) -> str:
    """Return a text as every database can hold it: a stranger's code may have said what is no Unicode."""
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()


def created(job: Job) -> NewEvent:
    """Return the first event of every job."""
    return NewEvent("created", f"Created fine-tuning job: {job.id}", data={})


def validating(job: Job) -> NewEvent:
    """Return the event of a validation that starts."""
    also = f" and validation file: {job.validation_file}" if job.validation_file else ""
    return NewEvent("validating", f"Validating training file: {job.training_file}{also}", data={})


def validated() -> NewEvent:
    """Return the event of files that are good."""
    return NewEvent("validated", "Files validated, moving job to queued state", data={})


def warning(number: int, text: str) -> NewEvent:
    """Return what validation wants its reader to know although the files are good."""
    return NewEvent(f"warning-{number}", text, level="warn", data={})


def started(attempt: int, step: int) -> NewEvent:
    """Return the event of a loaded model that is about to take its next step."""
    text = "Fine-tuning job started" if step == 0 else f"Fine-tuning job continues after step {step}"
    return NewEvent(f"started-{attempt}", text)


def said(key: str, text: str, level: str) -> NewEvent:
    """Return the event of what a worker has to say."""
    return NewEvent(key, printable(text), level=level, data={})


def step(method: str, data: dict[str, Any], created_at: float) -> NewEvent:
    """Return the metrics event of one optimizer step; `data` holds `step`, `total_steps` and what was measured."""
    number = int(data["step"])
    told = ", ".join(f"{name}={_number(data[key])}" for name, key in _TOLD[method] if key in data)
    # the blank before the comma is OpenAI's: scripts look for it
    text = f"Step {number}/{data['total_steps']}{_BEFORE.get(method, ':')} {told}".rstrip()
    return NewEvent(f"s{number}", text, type="metrics", data=data, created_at=created_at)


def _number(value: float | None) -> str:
    return "nan" if value is None else f"{value:.2f}"


def checkpoint(step: int, model_name: str, created_at: float) -> NewEvent:
    """Return the event of an earlier checkpoint that can be used from now on."""
    text = f"Checkpoint created at step {step} with Snapshot ID: {model_name}"
    return NewEvent(f"ckpt-{step}", text, data={}, created_at=created_at)


def model_created(model_name: str) -> NewEvent:
    """Return the event that names the tuned model."""
    return NewEvent("model", f"New fine-tuned model created: {model_name}", data={})


def succeeded() -> NewEvent:
    """Return the last event of a job that went well."""
    return NewEvent(TERMINAL_KEY, "The job has successfully completed", data={})


def failed(message: str) -> NewEvent:
    """Return the last event of a job that failed."""
    return NewEvent(TERMINAL_KEY, message, level="error", data={})


def cancelled() -> NewEvent:
    """Return the last event of a cancelled job."""
    return NewEvent(TERMINAL_KEY, "The job was cancelled", data={})


def pause_requested(version: int, *, by_server: bool = False) -> NewEvent:
    """Return the event of a training that is asked to pause; `version` is the row's, since a job may be paused often."""
    text = "Pause requested: the server is about to end" if by_server else "Pause requested"
    return NewEvent(f"pause-{version}", text, data={})


def pause_withdrawn(version: int) -> NewEvent:
    """Return the event of a job that was resumed before it had paused."""
    return NewEvent(f"withdrawn-{version}", "Pause withdrawn", data={})


def paused(version: int, step: int | None) -> NewEvent:
    """Return the event of a job that rests, after a step if it had begun to train."""
    text = "The job was paused" if step is None else f"The job was paused after step {step}"
    return NewEvent(f"paused-{version}", text, data={})


def stopped_short(version: int, reason: str, step: int | None) -> NewEvent:
    """Return the event of a job whose worker was gone before its pause had a checkpoint of its own."""
    rest = "the job is paused at its start" if step is None else f"the job is paused at its checkpoint at step {step}"
    return NewEvent(f"paused-{version}", f"{reason}; {rest}", level="warn", data={})


def resumed(version: int) -> NewEvent:
    """Return the event of a paused job that waits for its turn again."""
    return NewEvent(f"resumed-{version}", "The job was resumed", data={})


def waiting(version: int, sentence: str) -> NewEvent:
    """Return the event of a queued job that does not start at once, or now waits for something else."""
    return NewEvent(f"waiting-{version}", f"Waiting: {sentence}", data={})


def lost(attempt: int, reason: str, resume_step: int | None) -> NewEvent:
    """Return the event of a worker that was lost while its job has attempts left."""
    onward = "the job starts again" if resume_step is None else f"the job goes on from its checkpoint at step {resume_step}"
    return NewEvent(f"lost-{attempt}", f"{reason}; {onward}", level="warn", data={})


def tracker_failed(place: int, name: str, reason: str) -> NewEvent:
    """Return the event of a tracker that does not take a job's metrics, told once; the training goes on."""
    kept = "its metrics are kept here, and sent when that goes again"
    text = f"{name} cannot be told of this job: {reason.rstrip('.')}. The job goes on; {kept}"
    return NewEvent(f"tracker-{place}", printable(text), level="warn", data={})
