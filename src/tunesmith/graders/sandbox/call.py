"""What happens inside one call: load the stranger's source, call it, and answer with one frame on the call's pipe.

A frame is a letter and what belongs to it; the server reads `N_MAX_FRAME_BYTES` of it at the most. Whatever is written after
the first byte, `BEGUN`, is the stranger's word: the process is theirs from then on.
"""

import json
import linecache
import math
import os
import struct
import sys
import traceback
from collections.abc import Iterator
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import ast

#: The first byte of every answer whose call got as far as the stranger's source; without it, setting up failed.
BEGUN: Final = b">"
SETUP: Final = b"S"
RESULT: Final = b"R"
ERROR: Final = b"E"
LOADED: Final = b"L"
SYNTAX: Final = b"Y"
MISSING: Final = b"M"
UNFIT: Final = b"G"

N_MAX_TEXT_BYTES: Final = 8000
N_MAX_FRAME_BYTES: Final = 2 + N_MAX_TEXT_BYTES
FILE: Final = "grader.py"
_N_MAX_LINES: Final = 12
_CO_VARARGS: Final = 4
_RESULT_FORM: Final = struct.Struct("<d")


def run(job: bytes, answer: int) -> None:
    """Do a job (JSON: `action`, `check` or `grade`; `source`, `sample`, `item`, `memory`) and answer; never returns."""
    frame = ERROR + b"The grader failed, and so did telling why."
    memory = 0
    try:
        os.write(answer, BEGUN)
        asked: dict[str, Any] = json.loads(job)
        memory = int(asked["memory"])
        frame = _check(asked["source"]) if asked["action"] == "check" else _grade(asked)
    except MemoryError:
        frame = ERROR + b"MemoryError: the grader needs more memory than the %d MB that it may use." % (memory >> 20)
    except BaseException as error:  # noqa: BLE001 - whatever a stranger's code raises is an answer
        frame = ERROR + _told(error)
    finally:
        os.write(answer, frame[: N_MAX_FRAME_BYTES - 1])
        os._exit(0)


def rehearse() -> None:
    """Grade once with a source of our own: what Python makes the first time, a third of a call, every fork then has."""
    job = b'{"source": "def grade(sample, item): return 1", "sample": {}, "item": {}}'
    _grade(json.loads(job))
    del sys.modules["grader"]
    linecache.cache.clear()


def _check(source: str) -> bytes:
    """Load the source without calling it."""
    import ast  # noqa: PLC0415 - here and below: what few calls need is not to be copied for every one

    try:
        tree = ast.parse(source, FILE)
        compile(tree, FILE, "exec")
    except (SyntaxError, ValueError) as error:
        return SYNTAX + _short("".join(traceback.format_exception_only(type(error), error)))
    for name in _imports(tree):
        if not _importable(name):
            return MISSING + _short(name)
    return _unfit(_load(source).get("grade")) or LOADED


def _unfit(grade: Any) -> bytes:
    """Return the frame that tells why a value cannot be called as `grade(sample, item)`; nothing when it can."""
    if type(grade) is type(_unfit):
        code = grade.__code__
        if code.co_argcount == 2 and not code.co_kwonlyargcount and not code.co_flags & _CO_VARARGS:
            return b""
    if not callable(grade):
        return UNFIT + b"must define a function `grade(sample, item)` at its top level."
    import inspect  # noqa: PLC0415

    try:
        parameters = inspect.signature(grade).parameters.values()
    except (TypeError, ValueError):
        return UNFIT + b"defines a `grade` whose parameters cannot be told; write `def grade(sample, item)`."
    positional = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    many = any(one.kind is one.VAR_POSITIONAL for one in parameters)
    named = any(one.kind is one.KEYWORD_ONLY and one.default is one.empty for one in parameters)
    if len(positional) == 2 and not many and not named:
        return b""
    return UNFIT + _short(
        f"defines `grade` with the parameters ({', '.join(str(one) for one in parameters)}); it is called with exactly two: "
        "`grade(sample, item)`."
    )


def _grade(asked: dict[str, Any]) -> bytes:
    """Load the source and call it once."""
    grade = _load(asked["source"]).get("grade")
    unfit = _unfit(grade)
    if unfit:
        return ERROR + b"The source " + unfit[1:]
    assert callable(grade)
    score: Any = grade(asked["sample"], asked["item"])
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and isinstance(score, (numpy.integer, numpy.floating, numpy.bool_)):
        score = score.item()
    if not isinstance(score, (bool, int, float)):
        return ERROR + _short(f"grade() must return a number, not {_a(score)}.")
    try:
        number = float(score)
    except OverflowError:
        return ERROR + b"grade() returned a whole number that is too large for a score."
    if not math.isfinite(number):
        return ERROR + _short(f"grade() must return a finite number, not {number!r}.")
    return RESULT + _RESULT_FORM.pack(number)


def _a(value: Any) -> str:
    return "None" if value is None else f"a value of the type {type(value).__name__}"


def _load(source: str) -> dict[str, Any]:
    linecache.cache[FILE] = (len(source), None, source.splitlines(keepends=True), FILE)
    space: dict[str, Any] = {"__name__": "grader", "__builtins__": __builtins__}
    # a module that is found by its name, as dataclasses and pickle expect of a class
    module = type(sys)("grader")
    module.__dict__.update(space)
    sys.modules["grader"] = module
    exec(compile(source, FILE, "exec"), module.__dict__)
    return module.__dict__


def _imports(tree: "ast.AST") -> Iterator[str]:
    """Yield the packages that a source imports, save those whose absence it provides for (in a `try`)."""
    import ast  # noqa: PLC0415

    todo = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Try):
            todo += [*node.orelse, *node.finalbody]
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
        todo += ast.iter_child_nodes(node)


def _importable(name: str) -> bool:
    return name in sys.modules or name in sys.builtin_module_names or PathFinder.find_spec(name) is not None


def _told(error: BaseException) -> bytes:
    """Return an exception with the lines of the stranger's own source that led to it."""
    try:
        told = traceback.TracebackException(type(error), error, error.__traceback__, compact=True)
        outer: traceback.TracebackException | None = told
        while outer is not None:
            own = [frame for frame in outer.stack if frame.filename == FILE]
            left_out = len(own) - _N_MAX_LINES
            outer.stack[:] = own if left_out <= 0 else own[: _N_MAX_LINES // 2] + own[-_N_MAX_LINES // 2 :]
            outer = outer.__cause__ or outer.__context__
        return _short("".join(told.format()).rstrip())
    except BaseException:  # noqa: BLE001 - an exception whose own text raises
        return _short(f"{type(error).__name__}, whose text cannot be told")


def _short(text: str) -> bytes:
    """Return a text as bytes, its middle left out where it is long."""
    if len(text) > N_MAX_TEXT_BYTES:
        text = text[: N_MAX_TEXT_BYTES // 4] + "\n[...]\n" + text[-N_MAX_TEXT_BYTES // 2 :]
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= N_MAX_TEXT_BYTES:
        return encoded
    return encoded[: N_MAX_TEXT_BYTES // 4] + b"\n[...]\n" + encoded[-N_MAX_TEXT_BYTES // 2 :]


def number_of(frame: bytes) -> float | None:
    """Return the finite number in a frame of the kind `RESULT`; None when it is none."""
    if len(frame) != 1 + _RESULT_FORM.size or not frame.startswith(RESULT):
        return None
    number: float = _RESULT_FORM.unpack(frame[1:])[0]
    return number if math.isfinite(number) else None
