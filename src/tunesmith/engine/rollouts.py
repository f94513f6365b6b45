# pyright: basic
"""Documents from rollouts: each step samples a group of answers to every prompt, has them graded while others are still
being sampled, and trains on how each did beside its group.

Evaluation: the whole validation file before the first step, every `eval_interval` steps and after the last one, always with
the same seeds. A checkpoint is due after each.
"""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, Protocol

from torch import Tensor

from tunesmith.data.prompts import PromptRow
from tunesmith.data.render import Renderer
from tunesmith.domain.ports import Ask, Blobs, Drawing, Drawn
from tunesmith.engine.order import Shuffled
from tunesmith.engine.rewards import Figures
from tunesmith.engine.run import Bench, Interrupted, Taken
from tunesmith.engine.samples import Answer, Graded, read, told
from tunesmith.graders.base import Grade, Sample
from tunesmith.graders.grader import Grader
from tunesmith.methods.reinforcement import Reinforcement, advantages

#: Share of a step's samples whose grading may fail.
MOST_ERRORS: Final = 0.2
#: How far trainer and sampler may disagree about a token, on average, before a person should know.
WIDEST_GAP: Final = 0.1
_N_SHOWN: Final = 3
_N_SHOWN_CHARACTERS: Final = 500
_LOOK_EVERY_S: Final = 0.1


class GraderFailing(Exception):
    """Too many samples of a step got no grade; the message shows some of the reasons."""


class Prompts(Protocol):
    """The rows of a reinforcement file."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> PromptRow: ...


def unbound(row: PromptRow, prompt: list[int]) -> str | None:  # noqa: ARG001 - one of several that tell a row's grammar
    """Return nothing: answers are as they come."""
    return None


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is sampled and how often it is evaluated."""

    group_size: int
    eval_interval: int
    eval_samples: int
    context_length: int
    #: Most tokens of an answer, thinking included.
    max_tokens: int
    thinking: bool | None = None
    #: What the answers to a row's prompt keep to, as `tunesmith.data.grammar` writes it.
    grammar: Callable[[PromptRow, list[int]], str | None] = unbound
    #: Answers are JSON that graders may look into.
    as_json: bool = False


class Rollouts:
    """Answers to the prompts of the training file, and of the validation file for what is told of them."""

    def __init__(
        self,
        train: Prompts,
        valid: Prompts,
        *,
        plan: Plan,
        renderer: Renderer,
        sampler: Drawing,
        grader: Grader,
        grade: Callable[[Sample], Future[Grade]],
        blobs: Blobs,
    ) -> None:
        self._files = {"train": train, "valid": valid}
        self._plan = plan
        self._renderer = renderer
        self._sampler = sampler
        self._grade = grade
        self._blobs = blobs
        self._method = Reinforcement()
        self._figures = Figures(grader)
        self._sampled_s: float | None = None
        self._handed_out_at: float | None = None
        #: The step that was taken last, and its samples as they are put down.
        self._taken: tuple[int, list[bytes]] = (0, [])

    def attach(self, bench: Bench, tensors: dict[str, Tensor]) -> None:
        """Begin to work; nothing is carried from one attempt to the next, each step is sampled anew from its seeds."""
        del tensors
        self._bench = bench
        self._order = Shuffled(self.n_rows, batch_size=bench.run.batch_size, seed=bench.run.seed)

    @property
    def n_rows(self) -> int:
        """Return the rows of the training file."""
        return len(self._files["train"])

    def tensors(self) -> dict[str, Tensor]:
        """Return nothing: a step leaves nothing behind but weights."""
        return {}

    def saves_at(self, step: int) -> bool:
        """Say whether an evaluation, and with it a checkpoint, is due after a step."""
        return step % self._plan.eval_interval == 0 or step == self._bench.total_steps

    def begin(self) -> dict[str, Any]:
        """Return the evaluation before the first step."""
        return self._evaluate(0, {})

    def take(self, step: int) -> Taken:
        """Sample and grade a group for each prompt of the step.

        Raises:
            Interrupted: a pause was asked for meanwhile.
            GraderFailing: too many samples got no grade.
            FloatingPointError: the model says what is no number.
        """
        rows = self._order.rows(step)
        began = time.monotonic()
        # the same prompt gets other samples in every epoch
        groups = self._sample("train", step, rows, self._plan.group_size, salt=f"{step}")
        samples = [sample for group in groups for sample in group]
        self._sampled_s = time.monotonic() - began
        self._check_grader(step, samples)
        trained = [sample for group in groups if self._compare(group) for sample in group if sample.advantage]
        if not trained:
            self._warn_of_no_gradient(step)
        self._taken = step, self._recorded("train", step, samples)
        self._put_down(step, self._taken[1])
        counted = [sample for sample in samples if sample.reward is not None]
        n_counted = sum(len(sample.drawn.tokens) for sample in counted)
        documents = [sample.document() for sample in trained]
        self._handed_out_at = time.monotonic()
        return Taken(
            documents=documents,
            rows=rows,
            trained_tokens=sum(len(sample.prompt) + len(sample.drawn.tokens) for sample in counted),
            values=self._figures.of("train", samples, {}),
            n_idle=n_counted - sum(len(document.trained) for document in documents),
        )

    def validate(self, step: int, values: dict[str, Any]) -> dict[str, Any]:
        """Return the step's figures with those of its evaluation, where one is due, and how long everything took.

        Raises:
            Interrupted, GraderFailing, FloatingPointError: as `take`.
        """
        trained_s = None if self._handed_out_at is None else time.monotonic() - self._handed_out_at
        sampled_s, self._sampled_s, self._handed_out_at = self._sampled_s, None, None
        if "train_sampler_logp_gap" in values:
            gap = values["train_sampler_logp_gap"]
            values = {key: value for key, value in values.items() if key != "train_sampler_logp_gap"}
            values["sampler_logp_gap"] = gap
            if gap > WIDEST_GAP:
                self._warn_of_gap(step, gap)
        began = time.monotonic()
        figures = self._evaluate(step, values) if self.saves_at(step) else dict(values)
        evaluated_s = time.monotonic() - began
        spans = {"sampling": sampled_s, "training": trained_s, "eval": evaluated_s}
        whole = sum(seconds for seconds in spans.values() if seconds is not None)
        figures["timing"] = {**figures.get("timing", {}), "step": {**spans, "full_iteration": whole}}
        return figures

    def _evaluate(self, step: int, values: dict[str, Any]) -> dict[str, Any]:
        rows = range(len(self._files["valid"]))
        groups = self._sample("valid", step, rows, self._plan.eval_samples, salt="")
        samples = [sample for group in groups for sample in group]
        self._check_grader(step, samples)
        self._put_down(step, [*self._of_training(step), *self._recorded("valid", step, samples)])
        return self._figures.of("valid", samples, values)

    def _sample(self, split: str, step: int, rows: Sequence[int], n: int, *, salt: str) -> list[list[Graded]]:
        """Draw `n` samples of each row and return them with their grades, row by row."""
        told_rows = [self._files[split][row] for row in rows]
        seeds = [self._seed(split, row, salt) for row in rows]
        asks = [self._ask(row, seed, n) for row, seed in zip(told_rows, seeds, strict=True)]
        thoughts = [self._renderer.thought(ask.prompt, self._plan.thinking) for ask in asks]
        answers: dict[tuple[int, int], tuple[Drawn, Answer]] = {}
        grades: dict[tuple[int, int], Future[Grade]] = {}
        ranks = self._bench.ranks
        own = list(ranks.mine(range(len(asks))))

        def on_drawn(drawn: Drawn) -> None:
            number = own[drawn.ask]
            row = told_rows[number]
            seed = seeds[number] + drawn.sample
            answer = read(drawn, row, self._renderer, thought=thoughts[number], seed=seed, as_json=self._plan.as_json)
            place = number, drawn.sample
            answers[place] = drawn, answer
            grades[place] = self._grade(told(answer, row, as_json=self._plan.as_json))

        try:
            whole = self._sampler.draw([asks[number] for number in own], on_drawn, stop=self._bench.control.pause_asked)
            whole = whole and self._wait(grades.values())
            if not ranks.word(whole):
                raise Interrupted
            found = {place: (*answers[place], grade.result()) for place, grade in grades.items()}
        except FloatingPointError as error:
            raise FloatingPointError(f"{error} any more, when it is sampled at step {step}") from error
        finally:
            for grade in grades.values():
                grade.cancel()
        every = {place: each for part in ranks.pooled(found) for place, each in part.items()}
        return [
            [Graded(rows[number], ask.prompt, *every[number, sample]) for sample in range(n)]
            for number, ask in enumerate(asks)
        ]

    def _wait(self, grades: Iterable[Future[Grade]]) -> bool:
        """Wait for grades; False when a pause was asked for before they were there."""
        open_ = set(grades)
        while open_:
            _, open_ = wait(open_, timeout=_LOOK_EVERY_S, return_when=FIRST_EXCEPTION)
            if open_ and self._bench.control.pause_asked():
                return False
        return True

    def _ask(self, row: PromptRow, seed: int, n: int) -> Ask:
        plan = self._plan
        prompt = self._method.prompt(row, self._renderer, plan.thinking)
        room = plan.context_length - len(prompt)
        return Ask(prompt, n, min(plan.max_tokens, room), seed, grammar=plan.grammar(row, prompt))

    def _seed(self, split: str, row: int, salt: str) -> int:
        text = f"{self._bench.run.seed}:{split}:{row}:{salt}"
        return int.from_bytes(blake2b(text.encode(), digest_size=6).digest(), "big")

    def _compare(self, group: list[Graded]) -> bool:
        """Set the advantages of a group; False where nothing tells its samples apart."""
        graded = [(sample, sample.reward) for sample in group if sample.reward is not None]
        gains = advantages([reward for _, reward in graded if reward is not None])
        for (sample, _), gain in zip(graded, gains, strict=True):
            sample.advantage = gain
        return any(gains)

    def _check_grader(self, step: int, samples: list[Graded]) -> None:
        failed = [sample for sample in samples if sample.reward is None]
        if not failed:
            return
        reasons = list(dict.fromkeys(f"{flag}: {why}" for each in failed for flag, why in each.grade.errors.items()))
        shown = " | ".join(reason[:_N_SHOWN_CHARACTERS] for reason in reasons[:_N_SHOWN])
        share = f"The grader failed for {len(failed)} of the {len(samples)} samples of step {step}"
        if len(failed) > MOST_ERRORS * len(samples):
            raise GraderFailing(f"{share}, more than {MOST_ERRORS:.0%}: {shown}")
        text = f"{share}. They are left out, as are all further ones that it fails for: {shown}"
        self._bench.reporter.message(text, level="warn", key="grader-errors")

    def _warn_of_no_gradient(self, step: int) -> None:
        self._bench.reporter.message(
            f"Step {step} trained nothing: in every group all samples got the same reward, so there is nothing to learn "
            "from. Is the grader ever able to tell answers apart, and are the prompts neither all too easy nor too hard?",
            level="warn",
            key="no-gradient",
        )

    def _warn_of_gap(self, step: int, gap: float) -> None:
        self._bench.reporter.message(
            f"At step {step} the log-probabilities of sampling and of training differ by {gap:.3f} a token on average: the "
            "two compute the model differently.",
            level="warn",
            key="sampler-gap",
        )

    def _recorded(self, split: str, step: int, samples: list[Graded]) -> list[bytes]:
        file = self._files[split]
        records = (sample.record(file[sample.row], step=step, split=split) for sample in samples)
        return [(json.dumps(record) + "\n").encode() for record in records]

    def _of_training(self, step: int) -> list[bytes]:
        """Return the training's samples of a step; one that an earlier attempt took and was interrupted after has them."""
        taken, records = self._taken
        if taken == step:
            return records
        attempt = str(self._bench.run.resume_key).rpartition("/checkpoints/")[0]
        with self._blobs.open(_key(attempt, step)) as stream:
            return [*stream]

    def _put_down(self, step: int, records: list[bytes]) -> None:
        """Write the step's samples for people to look at, beside the attempt's checkpoints."""
        if self._bench.ranks.first:
            self._blobs.put(_key(self._bench.run.output_key, step), records)


def _key(attempt: str, step: int) -> str:
    return f"{attempt}/rollouts/{step:06d}.jsonl"
