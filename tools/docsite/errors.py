"""Errors as the code raises them: those of answers by their classes, those of jobs by the places that name a code."""

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import tunesmith
from docsite.http import Undescribed
from docsite.tables import first_line, table
from tunesmith.core.channel import LEASE_EXPIRED
from tunesmith.core.errors import ApiError

SOURCE: Final = Path(tunesmith.__file__).parent
#: Codes that are handed to an error where it is raised, and what they say.
CODES: Final = {
    "context_length_exceeded": "The prompt is longer than the model's context.",
    "exceeded_quota": "The project has as many files or bytes as it may.",
    "invalid_api_key": "The key is unknown, revoked or expired.",
    "invalid_type": "A field is of another JSON type.",
    "invalid_value": "A field's value cannot be; the message says which can.",
    "mismatched_organization": "`OpenAI-Organization` names another than the key's.",
    "mismatched_project": "`OpenAI-Project` names another than the key's.",
    "missing_required_parameter": "A field that has to be there is not.",
    "not_authorized_invalid_project": "The key's project is archived, or the project that is named is not there.",
    "rate_limit_exceeded": "The project has as many waiting jobs as it may.",
    "unknown_parameter": "There is no such field.",
}
#: The `error.code` of a failed job, and what it says.
JOB_CODES: Final = {
    "adapter_invalid": "The tuned model that the job was to go on from cannot be read.",
    "base_changed": "The files of the base are not those that it was registered with.",
    "base_not_found": "The base's folder cannot be read.",
    "base_not_supported": "The base is of a kind that cannot be trained here.",
    "checkpoint_invalid": "The checkpoint to go on from cannot be read.",
    "deleted_training_file": "The training file was deleted before the job began to train.",
    "deleted_validation_file": "The validation file was deleted before the job began to train.",
    "disk_full": "The disk is full.",
    "diverged": "The loss became infinite or no number; a smaller learning rate multiplier may help.",
    "grader_failed": "More than a fifth of a step's samples could not be graded.",
    "invalid_n_examples": "A file has too few rows, or too many.",
    "invalid_training_file": "Rows of the training file break the rules; the message names them.",
    "invalid_validation_file": "Rows of the validation file break the rules; the message names them.",
    "lease_expired": "With PostgreSQL: its processes ended themselves while the server was away, as often as they may.",
    "model_not_available": "The base, or the tuned model to go on from, is there no more.",
    "out_of_memory": "The machine's memory, or the GPU's, did not suffice.",
    "server_error": "A fault of this software; the message and the attempt's log tell where.",
    "worker_lost": "The job's processes died as often as `max_attempts` allows.",
}


def page() -> str:
    """Return the page of all errors."""
    rows: list[tuple[str, str, str, str]] = []
    for each in sorted(_classes(ApiError), key=lambda each: (each.status, each.code or "", each.__name__)):
        if not each.__doc__ or each.__doc__ == each.__bases__[0].__doc__:
            raise Undescribed(f"{each.__name__} has no docstring")
        told = first_line(each.__doc__).partition(" (")[0].rstrip(".") + "."
        rows.append((str(each.status), f"`{each.code}`" if each.code else "null", f"`{each.type}`", told))
    return (
        "# Errors and their codes\n\nEvery error of every path has the same body; `param` names the field where there is "
        "one, and `message` says what to do.\n\n"
        '```json\n{"error": {"message": "…", "type": "invalid_request_error", '
        '"param": "model", "code": "model_not_found"}}\n'
        f"```\n\n## By status\n\n{table(('status', 'code', 'type', 'when'), dict.fromkeys(rows))}\n"
        f"## Codes of particular fields and keys\n\nThey come with the statuses 400, 401 and 429 above.\n\n"
        f"{table(('code', 'when'), _told(CODES, raised_codes()))}\n"
        f"## Why a job failed\n\nThe `error.code` of a job whose status is `failed`.\n\n"
        f"{table(('code', 'when'), _told(JOB_CODES, job_codes()))}"
    )


def _told(meanings: dict[str, str], codes: set[str]) -> list[tuple[str, str]]:
    if codes - meanings.keys():
        raise Undescribed(f"no meaning is given for the codes {sorted(codes - meanings.keys())}")
    return [(f"`{code}`", meanings[code]) for code in sorted(codes)]


def _classes(of: type[ApiError]) -> Iterator[type[ApiError]]:
    for package in ("api", "services"):
        folder = str(SOURCE / package)
        for module in pkgutil.iter_modules([folder]):
            importlib.import_module(f"tunesmith.{package}.{module.name}")
    waiting = list(of.__subclasses__())
    while waiting:
        each = waiting.pop()
        waiting += each.__subclasses__()
        yield each


def raised_codes() -> set[str]:
    """Return the codes that are handed to errors by name, anywhere on the server's side."""
    return {
        node.value.value
        for package in ("api", "services", "inference")
        for path in (SOURCE / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.keyword) and node.arg == "code" and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }  # fmt: skip


def job_codes() -> set[str]:
    """Return the codes that a failed job can have: where a worker, or the server, says why."""
    found = {LEASE_EXPIRED}
    for name in ("worker/run.py", "worker/sources.py", "worker/train.py", "worker/validate.py", "services/specs.py"):
        for node in ast.walk(ast.parse((SOURCE / name).read_text())):
            match node:
                case ast.Call(func=ast.Name(id="Gone" | "InvalidFile") | ast.Attribute(attr="failed"), args=[code, *_]):
                    found |= _words(code)
                case ast.Tuple(elts=[ast.Constant() as code, ast.Constant(value=None | str()), *_]):
                    found |= _words(code)
                case _:
                    pass
    for node in ast.walk(ast.parse((SOURCE / "domain/reconcile.py").read_text())):
        match node:
            case ast.Assign(targets=[ast.Name(id="code")], value=value):
                found |= {word for each in ast.walk(value) for word in _words(each)}
            case _:
                pass
    return found | {f"invalid_{which}" for which in ("training_file", "validation_file")}


def _words(node: ast.AST) -> set[str]:
    value = node.value if isinstance(node, ast.Constant) else None
    return {value} if isinstance(value, str) and value.isidentifier() and value.islower() else set()
