"""Log lines on standard error: JSON where a program reads them, text on a terminal; the standard library's alike."""

import contextlib
import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final, Literal, TextIO, cast

import structlog
from structlog.types import Processor

Level = Literal["debug", "info", "warning", "error"]
Form = Literal["auto", "json", "text"]

#: Set on an exception whose traceback stands in the log already; whoever is handed it next says nothing more.
_TOLD: Final = "tunesmith_told"


def configure(*, level: Level = "info", form: Form = "auto", **bound: str | int) -> None:
    """Send this process's log to standard error; every line holds what is `bound`, such as an attempt's job."""
    as_text = sys.stderr.isatty() if form == "auto" else form == "text"
    number = logging.getLevelNamesMapping()[level.upper()]

    def add_bound(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {**bound, **event}

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        add_bound,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Processor] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)]
        if as_text
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=repr)]
    )
    stream = cast("TextIO", _Log())
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.addFilter(lambda record: not _is_told(record))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.WARNING))  # below that, libraries tell whom they ask for what, which may hold secrets


def told(error: BaseException) -> None:
    """Note that an exception's traceback is in the log, so that it is not logged again by a server that is handed it."""
    setattr(error, _TOLD, True)


def _is_told(record: logging.LogRecord) -> bool:
    return record.exc_info is not None and hasattr(record.exc_info[1], _TOLD)


class _Log:
    """Standard error as a log that nobody fails by: on a full disk, or a pipe that nobody reads, lines are lost."""

    def write(self, text: str) -> None:
        """Write, or not."""
        with contextlib.suppress(OSError):
            sys.stderr.write(text)

    def flush(self) -> None:
        """Flush, or not."""
        with contextlib.suppress(OSError):
            sys.stderr.flush()
