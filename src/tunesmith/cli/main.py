"""The `tunesmith` command: its verbs; what a verb does lives in a file of its own that is imported when it is asked for."""

import gc
import importlib.metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from tunesmith.cli import audit, backup, files, grader_env, integrations, keys, models, webhooks
from tunesmith.cli import gc as letting_go
from tunesmith.cli.flags import load, with_flags
from tunesmith.cli.limits import limits
from tunesmith.cli.preflight import preflight

app = typer.Typer(
    help="A self-hosted, drop-in replacement for OpenAI's fine-tuning service on open-weight models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(models.app, name="models")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(files.app, name="files")
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
        typer.echo(f"tunesmith {importlib.metadata.version('tunesmith')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Hold what stands before every verb."""


def serve(flags: dict[str, Any]) -> None:
    """Start the server. Every flag is also a variable TUNESMITH_… and a line of tunesmith.toml."""
    settings = load(flags)
    gc.disable()  # what is imported stays: looking through it for garbage again and again takes a sixth of the start
    from tunesmith.cli.serve import serve as start

    gc.freeze()
    gc.enable()
    raise typer.Exit(start(settings))


app.command("serve")(with_flags(serve))


def doctor(flags: dict[str, Any]) -> None:
    """Show settings with their source, the machine, versions, whether the server answers, and what is wrong."""
    settings = load(flags)
    from tunesmith.cli.doctor import examine

    raise typer.Exit(examine(settings, flags))


app.command("doctor")(with_flags(doctor))
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
    app()
