"""`tunesmith backup` and `tunesmith restore`: an embedded installation into a folder of its own, and out of it again."""

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from tunesmith.cli.client import DEFAULT_BASE_URL, BaseUrl, Client, fail
from tunesmith.cli.flags import load
from tunesmith.cli.output import AsJson, print_json
from tunesmith.cli.tars import N_CHUNK_BYTES, temporary, unpack
from tunesmith.core.machine import readable_bytes

DataDir = Annotated[Path | None, typer.Option(help="The data folder (default: the server's setting).", show_default=False)]
_SECRET: Final = "It holds the installation's keys and secrets: keep it as you keep those."


def backup(
    destination: Annotated[Path, typer.Argument(help="The new folder.")],
    data_dir: DataDir = None,
    bases: Annotated[bool, typer.Option(help="Take the weights of downloaded bases along.")] = True,
    as_json: AsJson = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
) -> None:
    """Back an installation up: one whose server runs by asking that server, another one from its data folder."""
    from tunesmith.core.data_folder import FolderInUse, FolderRefused
    from tunesmith.core.errors import ApiError
    from tunesmith.services.offline import backups_of

    if destination.exists():
        fail(f"{destination} is there already and is not written over: name another, or remove it first.", 2)
    settings = load({} if data_dir is None else {"data_dir": data_dir})
    if settings.database_url is not None and not settings.database_url.startswith("sqlite"):
        fail(
            "The database is a PostgreSQL: back it up with pg_dump, and the folder 'blobs' of the data folder beside it.", 2
        )
    folder = settings.data_dir.expanduser().absolute()
    try:
        with backups_of(folder) as backups:
            _write(backups.stream(bases=bases), destination)
        source = str(folder)
    except FolderInUse:
        source = _ask(destination, base_url, bases=bases)
    except FolderRefused as error:
        if data_dir is not None:
            fail(str(error))
        source = _ask(destination, base_url, bases=bases)
    except (OSError, ApiError, sqlite3.Error) as error:
        fail(f"{destination} cannot be written: {getattr(error, 'strerror', None) or error}.")
    n_bytes = sum(path.stat().st_size for path in destination.rglob("*") if path.is_file())
    if as_json:
        print_json({"source": source, "path": str(destination), "bytes": n_bytes})
        return
    typer.echo(f"{source} is backed up in {destination} ({readable_bytes(n_bytes)}). {_SECRET}")


def _ask(destination: Path, base_url: str, *, bases: bool) -> str:
    """Let a running server make the backup; return where it is."""
    with Client(base_url) as client, client.download("/tunesmith/v1/backup", {"bases": bases}) as response:
        try:
            _write(response.iter_bytes(N_CHUNK_BYTES), destination)
        except OSError as error:
            fail(f"{destination} cannot be written: {error.strerror or error}.")
    return client.root


def _write(chunks: Iterator[bytes], destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    with temporary(destination) as unfinished:
        unpack(chunks, unfinished)
        if not (unfinished / "manifest.json").is_file():
            fail("The backup broke off before its end, and nothing is kept of it. Its server's log may tell why.")
        unfinished.rename(destination)


def restore(
    source: Annotated[Path, typer.Argument(help="The folder of a backup.")],
    data_dir: Annotated[Path, typer.Option(help="The new data folder.")],
    as_json: AsJson = False,
) -> None:
    """Make a data folder of a backup, for `tunesmith serve --data-dir`."""
    from tunesmith.core.data_folder import FolderRefused
    from tunesmith.services.offline import restored

    target = data_dir.expanduser().absolute()
    try:
        made: Any = restored(source, target)
    except FolderRefused as error:
        fail(str(error))
    except OSError as error:
        fail(f"{target} cannot be written: {error.strerror or error}.")
    if as_json:
        told = {"path": str(target), "created_at": int(made.created_at), "files": made.n_files, "bytes": made.n_bytes}
        print_json({**told, "going_on": list(made.going_on), "absent": list(made.absent)})
        return
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(made.created_at))
    typer.echo(f"{target} holds what was backed up at {at}: {made.n_files} files, {readable_bytes(made.n_bytes)}.")
    if made.going_on:
        typer.echo(f"Jobs that ran then go on from their last checkpoint: {', '.join(made.going_on)}.")
    if made.absent:
        typer.echo(f"Was not there any more when the backup was made: {', '.join(made.absent)}.", err=True)
