"""A job in words, and jobs beside each other: the rows that `tunesmith jobs show` and `compare` print."""

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from tunesmith.cli.client import Client
from tunesmith.cli.job_calls import DETAILS, at, kind, knobs
from tunesmith.cli.output import duration, when
from tunesmith.cli.plotting import finals

CHAT: Final = "/v1/chat/completions"
#: Graders are longer than anybody reads in a table; `--json` has them whole.
N_CELL: Final = 60


def described(client: Client, job: dict[str, Any]) -> Iterator[tuple[str, object]]:
    """Yield what a job is, name by name; what a server does not tell is left out."""
    details = client.extra("GET", at(job["id"], prefix=DETAILS))
    yield "id", job["id"]
    yield "status", job["status"] + _waiting(client, job)
    yield "model", job["model"]
    yield "method", kind(job)
    asked = (details or {}).get("requested") or {}
    for name, value in knobs(job).items():
        yield name, f"{value} (auto)" if asked.get(name) == "auto" and value != "auto" else value
    for name in ("training_file", "validation_file"):
        if job.get(name):
            yield name.replace("_", " "), job[name]
    yield from _noted(job)
    yield from _come_of_it(job, details)


def _noted(job: dict[str, Any]) -> Iterator[tuple[str, object]]:
    yield "seed", job["seed"]
    if job.get("user_provided_suffix"):
        yield "suffix", job["user_provided_suffix"]
    if job.get("metadata"):
        yield "metadata", ", ".join(f"{name}={value}" for name, value in job["metadata"].items())
    for each in job.get("integrations") or []:
        yield "integration", json.dumps(each)
    yield "created", when(job["created_at"])


def _come_of_it(job: dict[str, Any], details: dict[str, Any] | None) -> Iterator[tuple[str, object]]:
    if details and details["step"] is not None and details["total_steps"]:
        yield "step", f"{details['step']:,} of {details['total_steps']:,}"
    if job["finished_at"]:
        began = (details or {}).get("started_at") or job["created_at"]
        yield "finished", f"{when(job['finished_at'])}, after {duration(job['finished_at'] - began)}"
    elif job.get("estimated_finish"):
        yield "will finish", f"in about {duration(max(0, job['estimated_finish'] - time.time()))}"
    if job["trained_tokens"] is not None:
        yield "trained tokens", f"{job['trained_tokens']:,}"
    if job["fine_tuned_model"]:
        yield "tuned model", job["fine_tuned_model"]
    if job["result_files"]:
        yield "result file", job["result_files"][0]
    if job.get("error") and job["error"].get("message"):
        yield "error", job["error"]["message"]


def _waiting(client: Client, job: dict[str, Any]) -> str:
    if job["status"] not in ("queued", "validating_files"):
        return ""
    entry = client.extra("GET", at(job["id"], "/queue", prefix=DETAILS))
    return f": {entry['message']}" if entry is not None else ""


def differing(jobs: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return the parameters in which jobs differ, a row each."""
    columns = [_parameters(job) for job in jobs]
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [[name, *(column.get(name, "-") for column in columns)] for name in names]
    return [row for row in rows if len(set(row[1:])) > 1]


def _parameters(job: dict[str, Any]) -> dict[str, str]:
    block = (job.get("method") or {}).get(kind(job)) or {}
    told: dict[str, Any] = {"status": job["status"], "model": job["model"], "method": kind(job), **knobs(job)}
    told |= {name: value for name, value in block.items() if name != "hyperparameters"}
    told |= {name.replace("_", " "): job.get(name) for name in ("training_file", "validation_file", "seed")}
    told |= {"trained tokens": job.get("trained_tokens"), "tuned model": job.get("fine_tuned_model")}
    if job.get("finished_at"):
        told["from creation to end"] = duration(job["finished_at"] - job["created_at"])
    return {name: _short(value) for name, value in told.items() if value is not None}


def _short(value: Any) -> str:
    said = value if isinstance(value, str) else json.dumps(value)
    return said if len(said) <= N_CELL else f"{said[: N_CELL - 1]}…"


def final_metrics(curves: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return the last metrics of jobs, a row each."""
    ends = [finals(each) for each in curves]
    names = dict.fromkeys(name for end in ends for name in end)
    return [[name, *(f"{end[name]:.4g}" if name in end else "-" for end in ends)] for name in names]


def answers(client: Client, models: Sequence[str], prompt: str) -> dict[str, Any]:
    """Return the models' answers to a prompt, `data` with a `completion` each; asked one by one where it has to be."""
    body: dict[str, Any] = {"messages": [{"role": "user", "content": prompt}], "seed": 0, "temperature": 0}
    told = client.extra("POST", "/tunesmith/v1/compare", {**body, "models": list(models)})
    if told is not None:
        return told
    each = [{"model": model, "completion": client.call("POST", CHAT, {**body, "model": model})} for model in models]
    return {"object": "list", "data": each}


def answer(each: dict[str, Any]) -> str:
    """Return the text of one model's answer, or why there is none."""
    if each.get("completion") is None:
        return str((each.get("error") or {}).get("message") or "no answer")
    return each["completion"]["choices"][0]["message"]["content"] or ""
