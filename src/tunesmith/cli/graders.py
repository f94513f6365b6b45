"""`tunesmith graders`: is a grader one, and what does it say of the answers in a file."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from tunesmith.cli.client import DEFAULT_BASE_URL, REFUSED, USAGE, BaseUrl, Client, fail
from tunesmith.cli.completion import complete_models
from tunesmith.cli.local import json_object
from tunesmith.cli.output import AsJson, print_json

PATH: Final = "/v1/fine_tuning/alpha/graders"

app = typer.Typer(help="Try a grader before a job is steered by it.", no_args_is_help=True)

GraderFile = Annotated[str, typer.Argument(metavar="GRADER.json", help="A file with the grader's JSON, or - for stdin.")]


@app.command()
def validate(grader: GraderFile, as_json: AsJson = False, base_url: BaseUrl = DEFAULT_BASE_URL) -> None:
    """Check a grader; exit code 1 where it could not work, with the field and the reason."""
    wanted = json_object(grader)
    with Client(base_url) as client:
        told = client.call("POST", f"{PATH}/validate", {"grader": wanted})["grader"]
    if as_json:
        print_json({"grader": told})
        return
    parts: dict[str, Any] = told.get("graders") or {}
    of = " of " + ", ".join(f"{name} ({part['type']})" for name, part in parts.items()) if parts else ""
    typer.echo(f"{grader} is a valid grader: {told['name']}, {told['type']}{of}.")


@app.command()
def run(  # noqa: PLR0913 - its arguments are the command's flags
    grader: GraderFile,
    file: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="Rows; their columns are what templates call item.")],
    sample: Annotated[
        str | None,
        typer.Option(
            help="Where a row has the answer: a column, a path such as answers[0].text, or a template such as "
            "'{{ item.answer }}.'; left out, the assistant's message at the end of its messages."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Let this model answer each row's messages, and grade that.", autocompletion=complete_models),
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="With --model: the most tokens of an answer.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first so many rows alone.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="The most requests at the same time.")] = 8,
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """Grade a file's answers, row by row. Exit code 1 where a row could not be graded."""
    if sample is not None and model is not None:
        fail("--sample takes answers from the rows and --model makes new ones: leave one out.", USAGE)
    if max_tokens is not None and model is None:
        fail("--max-tokens is for the answers of --model NAME.", USAGE)
    from tunesmith.cli.grading import Bench, show

    wanted = json_object(grader)
    with Client(base_url) as client:
        bench = Bench(client, wanted, sample=sample, model=model, max_tokens=max_tokens)
        told = bench.run(file, limit=limit, n_at_once=concurrency)
    if as_json:
        print_json(told)
    else:
        show(told)
    raise typer.Exit(REFUSED if told["n_errors"] else 0)
