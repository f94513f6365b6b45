"""`tunesmith chat`: talk with a model in a terminal, ask it one question, or let two answer side by side."""

import sys
from typing import Annotated, Any

import typer

from tunesmith.cli.client import DEFAULT_BASE_URL, USAGE, BaseUrl, Client, fail
from tunesmith.cli.completion import complete_models
from tunesmith.cli.output import AsJson, print_json, whole_list


def chat(
    model: Annotated[
        str, typer.Argument(help="A base, a tuned model (ft:…), a checkpoint, or an alias.", autocompletion=complete_models)
    ],
    message: Annotated[
        str | None, typer.Option("--message", "-m", help="Ask this alone; left out, stdin where it is no terminal.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="The system message.")] = None,
    compare: Annotated[
        str | None,
        typer.Option(metavar="MODEL2", help="Let this model answer too, beside it.", autocompletion=complete_models),
    ] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help="0 says the likeliest.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The most tokens of an answer.")] = None,
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """Talk with a model, streaming. Ctrl-C stops an answer, Ctrl-D leaves; /help tells the rest.

    With -m, or a pipe as stdin, it answers once. Any server with OpenAI's chat completions will do.
    """
    models = [model] if compare is None else [model, compare]
    options: dict[str, Any] = {}
    if temperature is not None:
        options["temperature"] = temperature
    if max_tokens is not None:
        options["max_completion_tokens"] = max_tokens
    if message is None and not sys.stdin.isatty():
        message = sys.stdin.read().strip()
        if not message:
            fail("There is nothing on stdin to ask: pipe a text in, or give it with -m.", USAGE)
    with Client(base_url) as client:
        root = client.root
        if as_json:
            if message is None:
                fail("--json is for one question: give it with -m, or on stdin.", USAGE)
            turns = ([{"role": "system", "content": system}] if system else []) + [{"role": "user", "content": message}]
            told = [
                client.call("POST", "/v1/chat/completions", {"model": name, "messages": turns, **options}) for name in models
            ]
            print_json(told[0] if compare is None else whole_list(told))
            return
    if message is None and not sys.stdout.isatty():
        fail("Nobody could read the conversation: stdout is no terminal. Ask with -m, or pipe a text in.", USAGE)
    from tunesmith.cli.talk import Talk

    talk = Talk(root, models, system, options)
    if message is not None:
        raise typer.Exit(talk.say(message))
    talk.go_on()
