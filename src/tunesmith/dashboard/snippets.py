"""A request to create a job as a person would write it: Python with the openai package, and curl."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

#: Columns of a line of code.
WIDTH: Final = 58


@dataclass(frozen=True, slots=True)
class Server:
    """Where a request goes, and in whose name."""

    base_url: str
    keyed: bool = True
    """Whether the server wants a key: the code then takes it from OPENAI_API_KEY, as all code for OpenAI does."""
    project: str | None = None
    """The project to name where it is not the key's own."""


def python(server: Server, body: Mapping[str, Any]) -> str:
    """Return the request as Python."""
    about = {"base_url": server.base_url, "api_key": None if server.keyed else "none-needed", "project": server.project}
    return (
        "from openai import OpenAI\n\n"
        f"client = OpenAI({_arguments(about)})\n"
        f"job = client.fine_tuning.jobs.create({_arguments(body)})\n"
        "print(job.id, job.status)\n"
    )


def _arguments(given: Mapping[str, Any]) -> str:
    """Return what a function is called with, a line each; what is None is left out."""
    lines = (f"    {name}={_literal(value, 4)},\n" for name, value in given.items() if value is not None)
    return f"\n{''.join(lines)}"


def _literal(value: object, indent: int) -> str:
    """Return a value as Python, a mapping that is long with a line for each of its names."""
    short = repr(value)
    if not isinstance(value, Mapping) or not value or len(short) + indent <= WIDTH:
        return short
    inner = " " * (indent + 4)
    lines = "".join(f"{inner}{name!r}: {_literal(each, indent + 4)},\n" for name, each in value.items())
    return f"{{\n{lines}{' ' * indent}}}"


def curl(server: Server, body: Mapping[str, Any]) -> str:
    """Return the request as a shell command."""
    text = json.dumps(body, indent=2, ensure_ascii=False).replace("'", "'\\''")
    headers = ["'Content-Type: application/json'"]
    if server.keyed:
        headers.insert(0, '"Authorization: Bearer $OPENAI_API_KEY"')
    if server.project:
        headers.append(f"'OpenAI-Project: {server.project}'")
    told = "".join(f"  -H {header} \\\n" for header in headers)
    return f"curl {server.base_url}/fine_tuning/jobs \\\n{told}  -d '{text}'\n"


def request(
    method: str,
    *,
    hyperparameters: Mapping[str, Any],
    grader: Mapping[str, Any] | None,
    **others: Any,
) -> dict[str, Any]:
    """Return the body of the request; what is None or empty was left to the server and is left out."""
    block: dict[str, Any] = {"hyperparameters": dict(hyperparameters)} if hyperparameters else {}
    if grader is not None:
        block["grader"] = dict(grader)
    body = {name: value for name, value in others.items() if value is not None and value not in ("", {})}
    return {**body, "method": {"type": method, **({method: block} if block else {})}}
