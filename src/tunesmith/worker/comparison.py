# pyright: basic
"""The last thing that a finished training does: answers before and after, written beside its checkpoints."""

import json
import time
from collections.abc import Callable

import structlog

from tunesmith.data.render import Renderer, RenderError
from tunesmith.data.rows import InvalidRows
from tunesmith.domain.ports import Blobs, Drawing, Reporter
from tunesmith.domain.tasks import TrainSpec
from tunesmith.engine.comparison import SHARE, Question, compare, picked
from tunesmith.engine.rows import FormFile
from tunesmith.methods.base import Method

log = structlog.get_logger()


def put_down(
    spec: TrainSpec,
    *,
    method: Method,
    renderer: Renderer,
    open_sampler: Callable[[], Drawing],
    blobs: Blobs,
    reporter: Reporter,
    trained_s: float,
) -> None:
    """Write `comparison.json`, in a part of the time that training took, with all that it needs counted.

    The training is done, so whatever goes wrong here is a warning and no more.
    """
    began = time.monotonic()
    try:
        questions = _questions(spec, method, blobs)
        rows = compare(
            questions,
            renderer=renderer,
            sampler=open_sampler(),
            context_length=spec.context_length,
            until=began + trained_s * SHARE,
        )
    except (InvalidRows, RenderError, RuntimeError, MemoryError, ValueError, OSError) as error:
        log.exception("train.comparison")
        reporter.message(f"Base and tuned model could not be compared: {error}", level="warn", key="comparison")
        return
    found = {"rows": rows, "base": spec.base_name, "seconds": round(time.monotonic() - began, 3)}
    blobs.put(f"{spec.output_key}/comparison.json", [json.dumps(found).encode()])


def _questions(spec: TrainSpec, method: Method, blobs: Blobs) -> list[Question]:
    key = spec.validation_key or spec.training_key
    file = FormFile(blobs.path(key), form=method.form, max_line_bytes=spec.max_line_bytes)
    questions: list[Question] = []
    for row in picked(len(file)):
        (messages, tools, parallel), reference = method.question(file[row])
        questions.append(Question(messages, tools, parallel, reference, held_out=spec.validation_key is not None))
    return questions
