"""Which of a job's checkpoints go by which rule."""

from typing import Any

import pytest

from tunesmith.domain.job import Checkpoint
from tunesmith.domain.retention import DAY_S, Policy, Rule, checkpoints_to_go

NOW = 100 * DAY_S
FINAL = "ft:m:o::final"


def listed(*figures: float | None, name: str = "full_valid_loss") -> list[Checkpoint]:
    """Return checkpoints of the steps 1, 2, … with these figures, a day apart, the last of today and the job's result."""
    n = len(figures)
    return [
        Checkpoint(
            f"c{step}",
            "job",
            "proj",
            NOW - (n - step) * DAY_S,
            step,
            FINAL if step == n else f"m{step}",
            f"k{step}",
            "",
            {} if figure is None else {name: figure},
        )
        for step, figure in enumerate(figures, start=1)
    ]


@pytest.mark.parametrize(
    ("rule", "method", "figures", "gone"),
    [
        (Rule(), "supervised", (3.0, 2.0, 1.0), []),
        (Rule("best"), "supervised", (3.0, 1.0, 2.0), [1]),
        (Rule("best"), "supervised", (3.0, 2.0, 1.0), [2, 1]),
        (Rule("best"), "supervised", (1.0, 1.0, 1.0), [2, 1]),
        (Rule("best"), "supervised", (None, 9.0, None), [1]),
        (Rule("best"), "supervised", (None, None, None), [2, 1]),
        (Rule("last"), "supervised", (1.0, 2.0, 3.0), [2, 1]),
        (Rule(2), "supervised", (1.0, 2.0, 3.0), [1]),
        (Rule(9), "supervised", (1.0, 2.0, 3.0), []),
        (Rule(None, 2), "supervised", (1.0, 2.0, 3.0), [1]),
        (Rule("last", 2), "supervised", (1.0, 2.0, 3.0), [1]),
        (Rule(2, 3), "supervised", (1.0, 2.0, 3.0), []),
        (Rule("best"), "reinforcement", (0.1, 0.9, 0.5), [1]),
    ],
)
def test_what_goes(rule: Rule, method: str, figures: Any, gone: list[int]) -> None:
    name = "valid_reward_mean" if method == "reinforcement" else "full_valid_loss"
    going = checkpoints_to_go(rule, method, listed(*figures, name=name), FINAL, NOW)
    assert [checkpoint.step for checkpoint in going] == gone


def test_a_result_never_goes_and_without_one_the_newest_is_like_any_other() -> None:
    every = listed(1.0, 2.0)
    assert [each.step for each in checkpoints_to_go(Rule(None, 0), "dpo", every, FINAL, NOW)] == [1]
    assert [each.step for each in checkpoints_to_go(Rule(None, 0), "dpo", every, None, NOW)] == [2, 1]


def test_by_no_policy_anything_goes() -> None:
    assert not any(Rule(**rule).says for rule in Policy("proj").rules().values())
