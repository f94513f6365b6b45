"""How far a command is that takes long: a bar in a terminal, a line for each tenth otherwise, both on stderr."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

from tunesmith.cli.output import tell as say
from tunesmith.core.machine import readable_bytes

#: What takes longer is told about.
QUIET_S: Final = 2.0


@contextmanager
def counting(what: str, total: int, *, of_bytes: bool = False) -> Generator[Callable[[int], None]]:
    """Yield what is told how much is done, and tells it to the user once it takes long."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TransferSpeedColumn

    figures = (DownloadColumn(), TransferSpeedColumn()) if of_bytes else (MofNCompleteColumn(),)
    console = Console(stderr=True)
    begun, n_tenths, shown = time.monotonic(), 0, False
    bar = Progress(TextColumn("{task.description}"), BarColumn(), *figures, console=console, transient=True)
    task = bar.add_task(what, total=total)

    def tell(n_done: int) -> None:
        nonlocal n_tenths, shown
        bar.update(task, completed=n_done)
        late = time.monotonic() - begun > QUIET_S
        if console.is_terminal and late and not shown:
            bar.start()
            shown = True
        tenth = 10 * n_done // max(total, 1)
        if not console.is_terminal and late and tenth > n_tenths:
            n_tenths = tenth
            done, all_ = (readable_bytes(n_done), readable_bytes(total)) if of_bytes else (f"{n_done:,}", f"{total:,}")
            say(f"{what}: {done} of {all_}")

    try:
        yield tell
    finally:
        if shown:
            bar.stop()
