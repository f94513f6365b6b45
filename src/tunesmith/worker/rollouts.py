# pyright: basic
"""What a reinforcement training samples with and is graded by, from its spec."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from pydantic import TypeAdapter

from tunesmith.core.channel import Task
from tunesmith.core.clock import SystemClock
from tunesmith.data.grammar import answer_grammar
from tunesmith.data.prompts import PromptForm, PromptRow
from tunesmith.data.render import Renderer
from tunesmith.data.response_format import schema_of
from tunesmith.data.thinking import n_tokens, thinking
from tunesmith.domain.ports import Blobs, Drawing
from tunesmith.domain.tasks import TrainSpec
from tunesmith.engine.rollouts import Plan, Rollouts
from tunesmith.engine.rows import FormFile
from tunesmith.graders.batch import Batch
from tunesmith.graders.grader import Grader
from tunesmith.methods.auto import group_size
from tunesmith.worker.grading import open_grading
from tunesmith.worker.judging import ServerDoor, ServerEmbedder, ServerJudge

#: Grades at the same time; the server has bounds of its own for judges.
N_GRADES: int = 16


@contextmanager
def open_rollouts(task: Task, spec: TrainSpec, *, renderer: Renderer, sampler: Drawing, blobs: Blobs) -> Generator[Rollouts]:
    """Open the source of a reinforcement training; its graders' processes end with it."""
    grader: Grader = TypeAdapter(Grader).validate_python(spec.method_config["grader"])
    folder = Path(spec.extra["grader_env"])
    clock, door = SystemClock(), ServerDoor(task)
    reduced = bool(spec.extra["sandbox_reduced"])
    judge, embedder = ServerJudge(door), ServerEmbedder(door)
    with open_grading(clock, folder, sandbox_reduced=reduced, judges=judge, embeddings=embedder) as loop:
        batch = Batch(grader, loop.tools, n_at_once=N_GRADES)
        yield Rollouts(
            FormFile(blobs.path(spec.training_key), form=PromptForm(), max_line_bytes=spec.max_line_bytes),
            FormFile(blobs.path(spec.validation_key or ""), form=PromptForm(), max_line_bytes=spec.max_line_bytes),
            plan=_plan(spec, renderer),
            renderer=renderer,
            sampler=sampler,
            grader=grader,
            grade=lambda sample: loop.begin(batch.one(sample)),
            blobs=blobs,
        )


def _plan(spec: TrainSpec, renderer: Renderer) -> Plan:
    knobs = spec.hyperparameters
    effort = str(knobs["reasoning_effort"])
    thinks = renderer.thinks(thinking(effort))
    schema = schema_of(spec.method_config.get("response_format"))

    def grammar(row: PromptRow, prompt: list[int]) -> str | None:
        one_call, thought = row.parallel_tool_calls is False, renderer.thought(prompt, thinking(effort))
        return answer_grammar(renderer, row.tools, one_call=one_call, schema=schema, thought=thought)

    return Plan(
        group_size=group_size(float(knobs["compute_multiplier"])),
        eval_interval=int(knobs["eval_interval"]),
        eval_samples=int(knobs["eval_samples"]),
        context_length=spec.context_length,
        max_tokens=n_tokens(effort, thinks=thinks, context_length=spec.context_length),
        thinking=thinking(effort),
        grammar=grammar,
        as_json=schema is not None,
    )
