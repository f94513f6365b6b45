"""The log of a process: its form, its level, what every line holds, and that no traceback stands in it twice."""

import contextlib
import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from tunesmith.core import logs

Written = Callable[[], str]


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """Return a function that returns what was logged; afterwards the log is what it was before."""
    root = logging.getLogger()
    handlers, level, configured = root.handlers[:], root.level, structlog.get_config()
    yield lambda: capsys.readouterr().err
    structlog.configure(**configured)
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(written: Written) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written().splitlines()]


def test_elsewhere_than_on_a_terminal_a_line_is_an_object(written: Written) -> None:
    logs.configure(job="ftjob-a", attempt=2)
    with structlog.contextvars.bound_contextvars(request="req_1"):
        structlog.get_logger().info("job.cancelled", n=1, what={1, 2})
    (line,) = lines(written)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "job.cancelled", "level": "info", "job": "ftjob-a", "attempt": 2, "request": "req_1", "n": 1,
        "what": "{1, 2}",
    }  # fmt: skip


def test_text_for_a_person(written: Written) -> None:
    logs.configure(form="text")
    structlog.get_logger().info("job.cancelled", job="ftjob-a")
    text = written()
    assert "[info" in text
    assert "job=ftjob-a" in text


def test_what_is_below_the_level_is_left_out(written: Written) -> None:
    logs.configure(level="warning")
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")
    logging.getLogger("uvicorn.error").info("quiet")
    assert [line["event"] for line in lines(written)] == ["loud"]


def test_the_standard_librarys_log_has_the_same_form(written: Written) -> None:
    logs.configure(job="ftjob-a")
    with structlog.contextvars.bound_contextvars(request="req_1"):
        logging.getLogger("uvicorn.error").warning("Invalid %s", "HTTP")
    (line,) = lines(written)
    assert {key: line[key] for key in ("event", "level", "logger", "job", "request")} == {
        "event": "Invalid HTTP", "level": "warning", "logger": "uvicorn.error", "job": "ftjob-a", "request": "req_1"
    }  # fmt: skip


def test_a_traceback_that_was_told_is_not_told_again(written: Written) -> None:
    logs.configure()
    error = OSError("broken")
    with contextlib.suppress(OSError):
        raise error
    structlog.get_logger().error("request.crashed", exc_info=error)
    logs.told(error)
    logging.getLogger("uvicorn.error").error("Exception in ASGI application", exc_info=error)
    logging.getLogger("uvicorn.error").error("Another", exc_info=ValueError("other"))
    first, second = lines(written)
    assert "Traceback" in first["exception"]
    assert (first["event"], second["event"]) == ("request.crashed", "Another")


def test_a_log_that_nobody_reads_fails_nobody(monkeypatch: pytest.MonkeyPatch, written: Written) -> None:
    class Full(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError("no space left")

    monkeypatch.setattr(sys, "stderr", Full())
    logs.configure()
    structlog.get_logger().info("lost")
    logging.getLogger("uvicorn.error").error("lost")
