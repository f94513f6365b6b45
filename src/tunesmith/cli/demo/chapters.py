"""The chapters on preferences and on rewards: a short job of dpo and one of reinforcement, each asked beside the base."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tunesmith.cli.demo.desk import BASE, Answers, Desk
from tunesmith.cli.demo.manners import Question, make_questions, polite, right
from tunesmith.cli.demo.sums import GRADER, Sum, make_sums

if TYPE_CHECKING:
    from openai.types.fine_tuning import DpoHyperparametersParam, ReinforcementHyperparametersParam

#: Fewer and larger steps than `auto` takes, and fewer evaluations: enough for these files, in less time.
DPO: Final["DpoHyperparametersParam"] = {"n_epochs": 3, "batch_size": 4, "learning_rate_multiplier": 2.0}
REINFORCEMENT: Final["ReinforcementHyperparametersParam"] = {"n_epochs": 3, "batch_size": 8, "eval_interval": 15}
N_SHOWN: Final = 4
#: Points by which the share of polite answers has to rise, and by which that of right ones may fall.
N_POLITE_POINTS: Final = 50.0
N_RIGHT_POINTS: Final = 3.0
#: What the mean reward has to rise by.
REWARD_GAIN: Final = 0.3


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a chapter came to."""

    text: str
    good: bool


def preferences(desk: Desk) -> Outcome:
    """Teach manners by pairs of answers that are both right; what the model knows is to stay."""
    questions = make_questions()
    asked = questions.held_out
    desk.screen.chapter(f"Preferences: {len(questions.training)} pairs of a polite answer and one without manners (dpo)")
    job = desk.tune("manners", desk.upload("preferences", questions), {"type": "dpo", "dpo": {"hyperparameters": DPO}})
    base, tuned = desk.compare((BASE, job.fine_tuned_model or ""), asked, _manners)
    desk.show(asked[:N_SHOWN], base, tuned)
    shares: list[tuple[float, float]] = []
    for given in (base, tuned):
        n_polite = _share(given, asked, lambda text, _: polite(text))
        n_right = _share(given, asked, right)
        shares.append((n_polite, n_right))
        desk.screen.line(f"{given.model}: {n_polite:.0f} % polite, {n_right:.0f} % right, of {len(asked)} questions")
    before, after = shares
    return Outcome(
        f"dpo            polite {before[0]:.0f} % -> {after[0]:.0f} %, right {before[1]:.0f} % -> {after[1]:.0f} %",
        after[0] >= before[0] + N_POLITE_POINTS and after[1] >= before[1] - N_RIGHT_POINTS,
    )


def rewards(desk: Desk) -> Outcome:
    """Raise what a grader gives for sums: nothing else says that the number alone is wanted."""
    sums = make_sums()
    asked = sums.held_out

    def reward(text: str, each: Sum) -> str:
        told = desk.client.fine_tuning.alpha.graders.run(
            grader=GRADER,  # pyright: ignore[reportArgumentType] - a plain dict is what users write
            model_sample=text,
            item={"answer": each.answer},
        )
        return f"reward {told.reward:.2f}"

    desk.screen.chapter(f"Rewards: a grader, and {len(sums.training)} sums without answers (reinforcement)")
    job = desk.tune(
        "sums",
        desk.upload("reinforcement", sums),
        {
            "type": "reinforcement",
            "reinforcement": {"grader": GRADER, "hyperparameters": REINFORCEMENT},
        },
    )
    base, tuned = desk.compare((BASE, job.fine_tuned_model or ""), asked, reward)
    desk.show(asked[:N_SHOWN], base, tuned)
    means: list[float] = []
    for given in (base, tuned):
        means.append(sum(float(mark.split()[1]) for mark in given.marks) / len(asked))
        desk.screen.line(f"{given.model}: mean reward {means[-1]:.2f} of {len(asked)} sums")
    before, after = means
    return Outcome(f"reinforcement  mean reward {before:.2f} -> {after:.2f}", after >= before + REWARD_GAIN)


def _manners(text: str, question: Question) -> str:
    return f"{'polite' if polite(text) else 'curt  '} {'right' if right(text, question) else 'wrong'}"


def _share(given: Answers, asked: Sequence[Question], holds: Callable[[str, Question], bool]) -> float:
    return 100 * sum(holds(text, each) for text, each in zip(given.texts, asked, strict=True)) / len(asked)
