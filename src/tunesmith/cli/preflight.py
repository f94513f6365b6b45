"""`tunesmith preflight`: what a job would be, take and cost, and every error of its files, before it is created."""

import contextlib
import json
from collections.abc import Generator
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from tunesmith.cli.client import DEFAULT_BASE_URL, REFUSED, BaseUrl, Client, fail
from tunesmith.cli.local import json_object
from tunesmith.cli.output import AsJson, print_json

PATH: Final = "/tunesmith/v1/fine_tuning/preflight"
METHODS: Final = ("supervised", "dpo", "reinforcement")
FILES: Final = ("training_file", "validation_file")


def preflight(  # noqa: PLR0913 - its arguments are the command's flags
    body: Annotated[
        str | None,
        typer.Argument(help="A file with the JSON body of a job, or - for stdin; flags come before what it says."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="The base, or a tuned model to go on from.")] = None,
    training_file: Annotated[str | None, typer.Option(help="A local JSONL file, or the id of an uploaded one.")] = None,
    validation_file: Annotated[str | None, typer.Option(help="The same, for validation.")] = None,
    method: Annotated[str | None, typer.Option(help="supervised, dpo or reinforcement.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A hyperparameter, NAME=VALUE, such as n_epochs=2; may be repeated.")
    ] = None,
    grader: Annotated[Path | None, typer.Option(help="Of reinforcement: a file with the grader's JSON.")] = None,
    keep: Annotated[bool, typer.Option(help="Leave files that were uploaded for this on the server.")] = False,
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """Look at a job before it is created: errors, steps, time, memory, cost. Exit code 1 where it would fail."""
    wanted = job_body(body, model=model, method=method, hyperparameters=set_ or (), grader=grader)
    for name, said in zip(FILES, (training_file, validation_file), strict=True):
        if said is not None:
            wanted[name] = said
    with Client(base_url) as client:
        client.require(PATH)
        with uploaded(client, wanted, keep=keep) as sent:
            told = client.call("POST", PATH, sent)
    if as_json:
        print_json(told)
    else:
        from tunesmith.cli.report import console, show_preflight

        show_preflight(console(), told)
    if not told["valid"]:
        raise typer.Exit(REFUSED)


def job_body(
    source: str | None,
    *,
    model: str | None,
    method: str | None,
    hyperparameters: list[str] | tuple[str, ...] = (),
    grader: Path | None = None,
) -> dict[str, Any]:
    """Return the body of a job from a file and flags; what cannot be one ends the command with one line."""
    wanted: dict[str, Any] = {} if source is None else json_object(source)
    if model is not None:
        wanted["model"] = model
    if method is not None and method not in METHODS:
        fail(f"--method '{method}' is none: there are {', '.join(METHODS)}.", 2)
    block: dict[str, Any] = {}
    if hyperparameters:
        block["hyperparameters"] = dict(map(_knob, hyperparameters))
    if grader is not None:
        block["grader"] = json_object(str(grader))
    kind = method or (wanted.get("method") or {}).get("type") or ("reinforcement" if grader is not None else "supervised")
    if method is not None or block:
        old = (wanted.get("method") or {}).get(kind) or {}
        merged = {**old, **block}
        if "hyperparameters" in block:
            merged["hyperparameters"] = {**(old.get("hyperparameters") or {}), **block["hyperparameters"]}
        wanted["method"] = {"type": kind, kind: merged}
    return wanted


@contextlib.contextmanager
def uploaded(client: Client, wanted: dict[str, Any], *, keep: bool) -> Generator[dict[str, Any]]:
    """Yield the body with local files replaced by uploaded ones, which are deleted in the end unless they are to stay."""
    from tunesmith.cli.stored import upload

    sent, ours = dict(wanted), list[str]()
    try:
        for name in FILES:
            said = wanted.get(name)
            if isinstance(said, str) and not said.startswith("file-"):
                path = Path(said)
                if not path.is_file():
                    flag = name.replace("_", "-")
                    fail(f"--{flag}: there is no file {said}, and no id begins so (ids begin with file-).", 2)
                sent[name] = upload(client, path, "fine-tune")["id"]
                ours.append(sent[name])
        yield sent
    finally:
        for file_id in ours if not keep else ():
            client.call("DELETE", f"/v1/files/{file_id}")


def _knob(said: str) -> tuple[str, Any]:
    name, equals, value = said.partition("=")
    if not equals:
        fail(f"--set {said}: it is written NAME=VALUE, such as n_epochs=2.", 2)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
