"""The `tunesmith` command: its verbs; what a verb does lives in a file of its own that is imported when it is asked for."""

import gc
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from tunesmith.cli import audit, backup, files, grader_env, graders, integrations, jobs, keys, models, webhooks
from tunesmith.cli import gc as letting_go
from tunesmith.cli.chat import chat
from tunesmith.cli.client import INTERRUPTED, REFUSED, USAGE, Unreachable, asked_for_json, fail
from tunesmith.cli.export import export
from tunesmith.cli.flags import SettingsVerb, load
from tunesmith.cli.limits import limits
from tunesmith.cli.output import AsJson
from tunesmith.cli.preflight import preflight


class Verbs(TyperGroup):
    """The command itself: what is typed wrongly is one line on stderr, as every other error is."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run a verb to the end of the process."""
        asked_for_json.set(False)
        try:
            code = super().main(*arguments, **{**options, "standalone_mode": False})
        except typer.Abort:
            sys.exit(INTERRUPTED)
        except TyperException as error:
            code = _misused(error, options.get("args") or sys.argv[1:])
        except Unreachable as error:
            code = _failed(str(error), error.code)
        except OSError as error:  # a disk that is full, a folder that vanished: whatever no verb has words of its own for
            about = f"{error.filename} cannot be used" if error.filename else "What the command read or wrote broke off"
            code = _failed(f"{about}: {error.strerror or error}.", REFUSED)
        sys.exit(code or 0)


def _misused(error: TyperException, words: list[str]) -> int:
    """Tell what is wrong with a command line in one line, and return the exit code."""
    context: typer.Context | None = getattr(error, "ctx", None)
    said = error.format_message()
    if said.startswith("Usage:"):  # a group without a verb shows its help
        typer.echo(said, err=True)
        return USAGE
    if "--json" in words:
        asked_for_json.set(True)
    path = context.command_path if context is not None else _verb(words)
    return _failed(f"{said}{'' if said[-1] in '.?' else '.'} `{path} --help` shows what it takes.", error.exit_code)


def _verb(words: list[str]) -> str:
    """Return the verb that was typed, for errors that do not know."""
    command: Any = typer.main.get_command(app)
    path = ["tunesmith"]
    for word in words:
        command = getattr(command, "commands", {}).get(word)
        if command is None:
            break
        path.append(word)
    return " ".join(path)


def _failed(message: str, code: int) -> int:
    try:
        fail(message, code)
    except typer.Exit as end:
        return end.exit_code


app = typer.Typer(
    cls=Verbs,
    help="A self-hosted, drop-in replacement for OpenAI's fine-tuning service on open-weight models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help is there in half the time, and eats no brackets
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
app.add_typer(jobs.app, name="jobs")
app.add_typer(models.app, name="models")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(files.app, name="files")
app.add_typer(graders.app, name="graders")
app.command()(chat)
app.command()(export)
app.command()(preflight)
app.add_typer(keys.app, name="keys")
keys.projects.command("limits")(limits)
app.add_typer(keys.projects, name="projects")
app.add_typer(integrations.app, name="integrations")
app.add_typer(grader_env.app, name="grader-env")
app.add_typer(letting_go.app, name="retention")
app.command("gc")(letting_go.gc)
app.command("audit")(audit.audit)


def _version(asked: bool) -> None:
    if asked:
        import importlib.metadata

        typer.echo(f"tunesmith {importlib.metadata.version('tunesmith')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Hold what stands before every verb."""


@app.command(cls=SettingsVerb)
def serve(ctx: typer.Context) -> None:
    """Start the server. Every flag is also a variable TUNESMITH_… and a line of tunesmith.toml."""
    settings = load(ctx.obj)
    gc.disable()  # what is imported stays: looking through it for garbage again and again takes a sixth of the start
    from tunesmith.cli.serve import serve as start

    gc.freeze()
    gc.enable()
    raise typer.Exit(start(settings))


@app.command(cls=SettingsVerb)
def doctor(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Show settings with their source, the machine, versions, whether the server answers, and what is wrong."""
    settings = load(ctx.obj)
    from tunesmith.cli.doctor import examine

    raise typer.Exit(examine(settings, ctx.obj, as_json=as_json))


app.command("backup")(backup.backup)
app.command("restore")(backup.restore)


@app.command()
def demo(
    keep: Annotated[Path | None, typer.Option(help="Keep the data folder here instead of deleting it at the end.")] = None,
) -> None:
    """Tune the embedded base by every method, as a user would; cancel a job; compare answers. Under three minutes."""
    from tunesmith.cli.demo.story import tell

    raise typer.Exit(tell(keep))


def main() -> None:
    """Run the command line."""
    if sys.stdout is None:  # closed by who started it
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - for the process's life
    app()
