"""`tunesmith jobs`: a job from its creation to its results; what the larger verbs do lives in files of their own."""

import shutil
import sys
import time
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from tunesmith.cli.client import DEFAULT_BASE_URL, USAGE, BaseUrl, Client, fail
from tunesmith.cli.completion import complete_files, complete_jobs, complete_models
from tunesmith.cli.job_calls import ENDED, JOBS, at, curves, find, kind, pages, result
from tunesmith.cli.output import AsJson, clean, pairs, print_json, table, tell, when, whole_list
from tunesmith.cli.preflight import METHODS, job_body

app = typer.Typer(help="Fine-tuning jobs: create, watch, steer and compare them.", no_args_is_help=True)

JobId = Annotated[
    str,
    typer.Argument(
        metavar="JOB", help="The job's id, or the beginning or end of it.", show_default=False, autocompletion=complete_jobs
    ),
]
#: The hyperparameters that have a flag; `--set` takes any.
KNOBS = (
    "n_epochs", "batch_size", "learning_rate_multiplier", "beta", "compute_multiplier", "eval_interval", "eval_samples",
    "reasoning_effort",
)  # fmt: skip
STATUSES = ("validating_files", "queued", "running", "paused", *ENDED)
FOLLOW_S = 0.5


@app.command()
def create(  # noqa: PLR0913 - its arguments are the command's flags
    model: Annotated[
        str | None, typer.Option(help="The base, or a tuned model to go on from.", autocompletion=complete_models)
    ] = None,
    training_file: Annotated[
        str | None,
        typer.Option(help="A local JSONL file, which is sent, or the id of one that is.", autocompletion=complete_files),
    ] = None,
    validation_file: Annotated[
        str | None, typer.Option(help="The same, for validation.", autocompletion=complete_files)
    ] = None,
    method: Annotated[str | None, typer.Option(help=f"{', '.join(METHODS)}.")] = None,
    n_epochs: Annotated[str | None, typer.Option(help="A number or auto, as all of these.")] = None,
    batch_size: Annotated[str | None, typer.Option(help="Rows of a step.")] = None,
    learning_rate_multiplier: Annotated[str | None, typer.Option(help="Of the rate that auto would take.")] = None,
    beta: Annotated[str | None, typer.Option(help="Of dpo: how close to the base it stays.")] = None,
    compute_multiplier: Annotated[str | None, typer.Option(help="Of reinforcement: how much it samples.")] = None,
    eval_interval: Annotated[str | None, typer.Option(help="Of reinforcement: steps between evaluations.")] = None,
    eval_samples: Annotated[str | None, typer.Option(help="Of reinforcement: samples of a row in an evaluation.")] = None,
    reasoning_effort: Annotated[str | None, typer.Option(help="Of reinforcement: default, low, medium or high.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Any hyperparameter, NAME=VALUE; may be repeated.")] = None,
    grader: Annotated[Path | None, typer.Option(help="Of reinforcement: a file with the grader's JSON.")] = None,
    suffix: Annotated[str | None, typer.Option(help="A word in the tuned model's name.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed, files and parameters make the same model.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="A note, KEY=VALUE; may be repeated.")] = None,
    wandb: Annotated[
        str | None, typer.Option(metavar="PROJECT", help="Tell Weights & Biases of the training, in this project.")
    ] = None,
    from_json: Annotated[
        str | None, typer.Option(metavar="FILE", help="The JSON body of the job, or - for stdin; flags come before it.")
    ] = None,
    preflight: Annotated[bool, typer.Option(help="Look at the job before, where the server can.")] = True,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Watch it to its end, whose exit code is the command's.")
    ] = False,
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """Create a job: show what it would be, ask (in a terminal), and print its id."""
    values = (
        n_epochs, batch_size, learning_rate_multiplier, beta, compute_multiplier, eval_interval, eval_samples,
        reasoning_effort,
    )  # fmt: skip
    said = [f"{name}={value}" for name, value in zip(KNOBS, values, strict=True) if value is not None]
    wanted = job_body(from_json, model=model, method=method, hyperparameters=[*said, *(set_ or ())], grader=grader)
    others = {"training_file": training_file, "validation_file": validation_file, "suffix": suffix, "seed": seed}
    wanted |= {name: value for name, value in others.items() if value is not None}
    if metadata:
        wanted["metadata"] = {**(wanted.get("metadata") or {}), **_pairs("--metadata", metadata)}
    if wandb is not None:
        wanted["integrations"] = [*(wanted.get("integrations") or []), {"type": "wandb", "wandb": {"project": wandb}}]
    from tunesmith.cli.creating import create as make

    with Client(base_url) as client:
        job = make(client, wanted, look=preflight, ask=not yes and from_json != "-", quiet=as_json)
        if sys.stdout.isatty() and not as_json:
            typer.echo(f"{job['id']} is created; `tunesmith jobs watch {job['id']}` shows how it goes.")
        elif not as_json:
            typer.echo(job["id"])
        if watch:
            _watch(client, job, as_json=as_json)
    if as_json:
        print_json(job)


@app.command("list")
def list_jobs(
    status: Annotated[list[str] | None, typer.Option(help=f"{', '.join(STATUSES)}; may be repeated.")] = None,
    method: Annotated[str | None, typer.Option(help=f"{', '.join(METHODS)}.")] = None,
    model: Annotated[
        str | None, typer.Option(help="The base, or the tuned model that came of it.", autocompletion=complete_models)
    ] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="A note that they have, KEY=VALUE; may be repeated.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The most jobs to list.")] = 20,
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """List jobs, newest first: id, status, method, creation, and the tuned model, or the base as long as there is none."""
    for flag, given, known in (("--status", status or (), STATUSES), ("--method", (method,) if method else (), METHODS)):
        for each in given:
            if each not in known:
                fail(f"{flag} '{each}' is none: there are {', '.join(known)}.", USAGE)
    noted = "&".join(
        f"metadata[{quote(name, safe='')}]={quote(value, safe='')}"
        for name, value in _pairs("--metadata", metadata or ()).items()
    )
    found: list[dict[str, Any]] = []
    with Client(base_url) as client:
        for job in pages(client, JOBS + (f"?{noted}" if noted else "")):
            asked = (not status or job["status"] in status, not method or kind(job) == method)
            if all(asked) and (not model or model in (job["model"], job["fine_tuned_model"])):
                found.append(job)
            if len(found) > limit:
                break
    if as_json:
        print_json({**whole_list(found[:limit]), "has_more": len(found) > limit})
        return
    rows = [
        [job["id"], job["status"], kind(job), when(job["created_at"]), job["fine_tuned_model"] or job["model"]]
        for job in found[:limit]
    ]
    table(["id", "status", "method", "created", "model"], rows)
    if len(found) > limit and sys.stdout.isatty():
        tell(f"There are more; --limit {2 * limit} shows some of them.")


@app.command()
def show(job: JobId, as_json: AsJson = False, base_url: BaseUrl = DEFAULT_BASE_URL) -> None:
    """Show a job: its state, its parameters as they were resolved, and what came of it."""
    from tunesmith.cli.job_views import described

    with Client(base_url) as client:
        found = find(client, job)
        if as_json:
            print_json(found)
        else:
            pairs(described(client, found))


@app.command()
def watch(job: JobId, as_json: AsJson = False, base_url: BaseUrl = DEFAULT_BASE_URL) -> None:
    """Watch a job to its end, through restarts of the server. Exit code 0, 4 where it failed, 5 where it was cancelled.

    Ctrl-C asks whether to leave the job to itself or to cancel it; a second one leaves it (exit code 130).
    """
    with Client(base_url) as client:
        _watch(client, find(client, job), as_json=as_json)


@app.command()
def cancel(job: JobId, as_json: AsJson = False, base_url: BaseUrl = DEFAULT_BASE_URL) -> None:
    """Cancel a job at once; checkpoints that it has made stay."""
    _steer(job, "cancel", "is cancelled", as_json=as_json, base_url=base_url)


@app.command()
def pause(job: JobId, as_json: AsJson = False, base_url: BaseUrl = DEFAULT_BASE_URL) -> None:
    """Pause a job; one that trains is paused once its checkpoint is complete."""
    _steer(job, "pause", "pauses once its checkpoint is complete", as_json=as_json, base_url=base_url)


@app.command()
def resume(job: JobId, as_json: AsJson = False, base_url: BaseUrl = DEFAULT_BASE_URL) -> None:
    """Let a paused job go on."""
    _steer(job, "resume", "goes on when it is its turn", as_json=as_json, base_url=base_url)


@app.command()
def logs(
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """Print a job's events, oldest first: time, level, message."""
    seen: dict[str, dict[str, Any]] = {}
    with Client(base_url) as client:
        found = find(client, job)
        while True:
            fresh: list[dict[str, Any]] = []
            for event in pages(client, at(found["id"], "/events")):
                if event["id"] in seen:
                    break
                fresh.append(event)
            for event in reversed(fresh):
                seen[event["id"]] = event
                if not as_json:
                    cells = (time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["created_at"])), event["level"])
                    typer.echo(("  " if sys.stdout.isatty() else "\t").join((*cells, clean(event["message"]))))
            if not follow or found["status"] in ENDED:
                break
            time.sleep(FOLLOW_S)
            found = client.call("GET", at(found["id"]))
    if as_json:
        print_json(whole_list(list(seen.values())))


@app.command()
def results(
    job: JobId,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The new file; left out, it is printed.")] = None,
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """Print a job's result file, the CSV of its metrics by step; with --json its file object."""
    if output is not None and output.exists():
        fail(f"{output} is there already and is not written over: name another, or remove it first.", USAGE)
    with Client(base_url) as client:
        found = find(client, job)
        text = result(client, found)
        file = client.call("GET", f"/v1/files/{found['result_files'][0]}") if as_json else None
    if output is not None:
        try:
            output.write_text(text, encoding="utf-8", newline="")
        except OSError as error:
            fail(f"{output} cannot be written: {error.strerror or error}.")
        tell(f"{output} is written.")
    elif not as_json:
        typer.echo(text, nl=False)
    if as_json:
        print_json(file)


@app.command()
def plot(
    job: JobId,
    metric: Annotated[
        list[str] | None, typer.Option(help="reward, loss, accuracy, margin, or a column; may be repeated. All if left out.")
    ] = None,
    height: Annotated[int, typer.Option(min=3, max=100, help="The lines of a chart.")] = 10,
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """Draw a job's curves: a line for training, dots for validation."""
    from tunesmith.cli.plotting import chart, charts, points

    with Client(base_url) as client:
        found = find(client, job)
        told = curves(client, found)
    if as_json:
        print_json(told)
        return
    drawn = charts(told)
    for name in metric or ():
        if name not in {chart[0] for chart in drawn} | set(told["columns"][1:]):
            known = [chart[0] for chart in drawn] + told["columns"][1:]
            fail(f"{found['id']} has no metric '{name}'; it has {', '.join(known) or 'none so far'}.", USAGE)
    if metric:
        drawn = [next((each for each in drawn if each[0] == name), (name, name, None)) for name in metric]
    if not drawn:
        fail(f"{found['id']} has no metrics so far: it is {found['status']}.")
    width = min(100, shutil.get_terminal_size().columns)
    for number, (name, training, validation) in enumerate(drawn):
        sides = [f"⠒ {training}" if training else "", f"● {validation}" if validation else ""]
        legend = "   ".join(filter(None, sides))
        typer.echo(("\n" if number else "") + (legend if name == training else f"{name}   {legend}"))
        line, marks = (points(told, side) if side else [] for side in (training, validation))
        for text in chart(line, marks, width=width, height=height):
            typer.echo(text)


@app.command()
def compare(
    jobs: Annotated[list[str], typer.Argument(metavar="JOB...", help="Two jobs or more.", autocompletion=complete_jobs)],
    prompt: Annotated[str | None, typer.Option(help="Ask their models this, and show their answers.")] = None,
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """Show jobs side by side: the parameters that differ, their last metrics, and their answers to a prompt."""
    from tunesmith.cli.job_views import answer, answers, differing, final_metrics

    if len(jobs) < 2:
        fail("There are two jobs or more to a comparison: name another.", USAGE)
    with Client(base_url) as client:
        found = [find(client, job) for job in jobs]
        told = [curves(client, job) for job in found]
        asked = None
        if prompt is not None:
            for job in found:
                if not job["fine_tuned_model"]:
                    fail(f"{job['id']} has no model that could be asked: it is {job['status']}. Leave --prompt out.")
            asked = answers(client, [job["fine_tuned_model"] for job in found], prompt)
    if as_json:
        print_json({**whole_list(found), "metrics": told, "comparison": asked})
        return
    rows = [*differing(found), *final_metrics(told)]
    table(["", *(job["id"] for job in found)], rows)
    for each in asked["data"] if asked else ():
        said = clean(answer(each))
        typer.echo(
            f"\n{typer.style(each['model'], bold=True)}\n{said}" if sys.stdout.isatty() else f"{each['model']}\t{said}"
        )


def _steer(said: str, verb: str, done: str, *, as_json: bool, base_url: str) -> None:
    with Client(base_url) as client:
        job = client.call("POST", at(find(client, said)["id"], f"/{verb}"))
    if as_json:
        print_json(job)
        return
    typer.echo(f"{job['id']} {'is paused' if job['status'] == 'paused' else done}.")


def _watch(client: Client, job: dict[str, Any], *, as_json: bool) -> None:
    from tunesmith.cli.watching import watch

    job, code = watch(client, job, as_json=as_json)
    if as_json:
        print_json(job)
    raise typer.Exit(code)


def _pairs(flag: str, said: list[str] | tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in said:
        name, equals, value = each.partition("=")
        if not equals or not name:
            fail(f"{flag} {each}: it is written KEY=VALUE.", USAGE)
        found[name] = value
    return found
