"""What the pages say in words: times, durations, sizes, states; and which jobs a filter leaves."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

#: The colour that stands for a state; the word always stands beside it.
COLORS: Final = {
    "validating_files": "blue-8",
    "queued": "blue-grey-7",
    "running": "teal-8",
    "paused": "brown-6",
    "succeeded": "green-9",
    "failed": "red-9",
    "cancelled": "grey-8",
}
#: States in which something may still happen.
UNFINISHED: Final = ("validating_files", "queued", "running", "paused")
#: Of a long text, how many characters are shown.
N_SHOWN: Final = 1000


def when(unix: float | None) -> str:
    """Return a time in words, by this machine's clock and zone."""
    return "" if unix is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix))


def lasting(seconds: float | None) -> str:
    """Return a duration, its two largest units."""
    if seconds is None:
        return ""
    whole = max(0, round(seconds))
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def size(n_bytes: float | None) -> str:
    """Return a size in the unit that fits."""
    if n_bytes is None:
        return ""
    for unit in ("B", "KB", "MB", "GB"):
        if n_bytes < 1000 or unit == "GB":
            break
        n_bytes /= 1000
    return f"{n_bytes:.0f} B" if unit == "B" else f"{n_bytes:.1f} {unit}"


def number(value: object) -> str:
    """Return a number as it is read: whole ones with separators, others with four significant digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def name_of(job: Mapping[str, Any]) -> str:
    """Return what a person calls a job: its suffix, else its id."""
    return str(job.get("user_provided_suffix") or job["id"])


def took(job: Mapping[str, Any], now: float) -> float:
    """Return how many seconds a job has taken, to its end or until now."""
    return (job["finished_at"] or now) - job["created_at"]


def left(job: Mapping[str, Any], now: float) -> str:
    """Return how long a running job still takes, as the server estimates it."""
    finish = job.get("estimated_finish")
    return lasting(finish - now) if finish and job["status"] == "running" else ""


def filtered(
    jobs: Iterable[Mapping[str, Any]],
    *,
    text: str = "",
    states: Iterable[str] = (),
    methods: Iterable[str] = (),
    models: Iterable[str] = (),
) -> list[Mapping[str, Any]]:
    """Return the jobs that all filters leave; an empty one leaves all."""
    wanted, some_states, some_methods, some_models = text.strip().lower(), set(states), set(methods), set(models)
    return [
        job
        for job in jobs
        if (not some_states or job["status"] in some_states)
        and (not some_methods or job["method"]["type"] in some_methods)
        and (not some_models or job["model"] in some_models)
        and (not wanted or any(wanted in str(job.get(field) or "").lower() for field in _SEARCHED))
    ]


_SEARCHED: Final = ("id", "user_provided_suffix", "model", "fine_tuned_model", "metadata")


def pairs(text: str) -> dict[str, str]:
    """Return metadata written as `key=value, key=value`.

    Raises:
        ValueError: a part is no pair; the text names it.
    """
    found: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, sign, value = part.partition("=")
        if not sign or not key.strip():
            raise ValueError(f"'{part}' is no pair: write key=value, several with commas between them.")
        found[key.strip()] = value.strip()
    return found


def newest(models: Sequence[str]) -> str:
    """Return the tuned model that was made last, sooner a whole one than a checkpoint; without any the first base."""
    tuned = [model for model in models if model.startswith("ft:")]  # the server lists the newest first
    whole = [model for model in tuned if ":ckpt-step-" not in model]
    return [*whole, *tuned, models[0]][0]


def split(field: str) -> tuple[str, str]:
    """Return the name of the grader within `multi` that has a template, empty without `multi`, and its field there."""
    if not field.startswith("graders."):
        return "", field
    name, _, rest = field.removeprefix("graders.").partition(".")
    return name, rest


def shortened(text: str) -> str:
    """Return a text as far as it is shown."""
    return text if len(text) <= N_SHOWN else f"{text[:N_SHOWN]} … ({len(text):,} characters)"
