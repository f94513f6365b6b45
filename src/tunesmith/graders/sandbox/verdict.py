"""What a call's end means: a score, or a refusal or failure in words."""

import os
import signal
from typing import Final

from tunesmith.graders.base import GraderRefused, GradingFailed
from tunesmith.graders.sandbox import call, packages
from tunesmith.graders.sandbox.layers import Limits
from tunesmith.graders.sandbox.process import Ended

_MEGABYTE: Final = 1 << 20
#: What a frame says that a stranger's source was answered with, by its first letter.
_LETTERS: Final = frozenset((call.RESULT, call.ERROR, call.LOADED, call.SYNTAX, call.MISSING, call.UNFIT))


class SetUpFailed(Exception):
    """A call ended before the stranger's source was looked at: the sandbox's own trouble."""


def score_of(ended: Ended, limits: Limits) -> float:
    """Return the score that a call of `grade` ended with.

    Raises:
        GradingFailed: it ended otherwise, by the source's fault.
        SetUpFailed: by ours.
    """
    frame = _frame(ended, limits)
    if frame.startswith(call.ERROR):
        raise _failed(_text(frame))
    number = call.number_of(frame)
    if number is None:
        raise _failed("grade() answered with what is no finite number.")
    return number


def check(ended: Ended, limits: Limits) -> None:
    """Return when a call that loads a source ended well.

    Raises:
        GraderRefused: the source cannot be graded with; the field is `source`.
        SetUpFailed: by our fault it is not known.
    """
    try:
        frame = _frame(ended, limits)
    except GradingFailed as failure:
        text = failure.details.replace("grade()", "loading it", 1)
        raise GraderRefused("source", f"The source cannot be loaded: {text}") from failure
    letter, text = frame[:1], _text(frame)
    if letter == call.LOADED:
        return
    if letter == call.SYNTAX:
        raise GraderRefused("source", f"The source is not Python:\n{text}")
    if letter == call.MISSING:
        name = text[:100]
        raise GraderRefused("source", f"The source imports {name}, which graders do not have here. {packages.way_out(name)}")
    if letter == call.UNFIT:
        raise GraderRefused("source", f"The source {text}")
    raise GraderRefused("source", f"The source cannot be loaded:\n{text}")


def _frame(ended: Ended, limits: Limits) -> bytes:
    """Return what a call's own process answered after it began."""
    if ended.timed_out:
        raise _failed(f"grade() was ended: it took longer than {limits.wall_s:g} seconds.")
    if ended.status == -1:
        raise SetUpFailed("no process could be made for it")
    if not ended.frame.startswith(call.BEGUN):
        told = ended.frame[1:].decode(errors="replace") if ended.frame.startswith(call.SETUP) else _end(ended.status)
        raise SetUpFailed(told)
    frame = ended.frame[len(call.BEGUN) :]
    if os.WIFSIGNALED(ended.status):
        number = os.WTERMSIG(ended.status)
        if number == signal.SIGKILL:
            megabytes = limits.memory_bytes // _MEGABYTE
            raise _failed(f"grade() was killed: it took more than its {megabytes} MB of memory, or of processor time.")
        raise _failed(f"grade() crashed its process ({_name(number)}).")
    if len(frame) >= call.N_MAX_FRAME_BYTES:
        raise _failed("grade() wrote more than a result to the channel of its result.")
    if ended.status != 0 or not frame:
        raise _failed(f"grade() ended its process before it returned ({_end(ended.status)}).")
    if frame[:1] not in _LETTERS:
        raise _failed("grade() wrote something else than a result to the channel of its result.")
    return frame


def _failed(details: str) -> GradingFailed:
    return GradingFailed("python_grader_runtime_error", details)


def _text(frame: bytes) -> str:
    return frame[1:].decode(errors="replace")


def _end(status: int) -> str:
    if os.WIFSIGNALED(status):
        return _name(os.WTERMSIG(status))
    return f"exit status {os.waitstatus_to_exitcode(status)}"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
