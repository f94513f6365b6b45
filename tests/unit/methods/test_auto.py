"""The published rules, at the numbers that are known and at their edges."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.methods import auto


@pytest.mark.parametrize(
    ("n_examples", "epochs"),
    [
        (1, 25), (4, 25), (5, 20), (10, 10), (33, 3), (34, 3), (100, 3), (101, 3), (8333, 3), (8334, 2), (12_500, 2),
        (12_501, 1), (25_000, 1), (1_000_000, 1),
    ],
)  # fmt: skip
def test_epochs(n_examples: int, epochs: int) -> None:
    assert auto.n_epochs(n_examples) == epochs


@pytest.mark.parametrize(
    ("n_examples", "rows"), [(10, 1), (100, 1), (101, 1), (999, 1), (1000, 2), (128_000, 256), (10_000_000, 256)]
)
def test_batch_sizes(n_examples: int, rows: int) -> None:
    assert auto.batch_size(n_examples) == rows


def test_what_is_given_stands_and_the_rest_is_resolved() -> None:
    resolved = {"n_epochs": 3, "batch_size": 1, "learning_rate_multiplier": 1.0}
    assert auto.resolve("supervised", {}, 100) == resolved
    assert auto.resolve("supervised", dict.fromkeys(resolved, "auto"), 100) == resolved
    assert auto.resolve("supervised", {"n_epochs": 7, "batch_size": None}, 100) == {**resolved, "n_epochs": 7}
    assert auto.resolve("supervised", {"learning_rate_multiplier": 0.1, "beta": 0.2}, 100) == {
        **resolved,
        "learning_rate_multiplier": 0.1,
        "beta": 0.2,
    }


@given(n_examples=st.integers(1, 10**7), given_size=st.integers(1, 256))
def test_steps_cover_every_example_once(n_examples: int, given_size: int) -> None:
    steps = auto.steps_per_epoch(n_examples, given_size)
    assert (steps - 1) * given_size < n_examples <= steps * given_size
    assert 1 <= auto.n_epochs(n_examples) <= 25
    assert 1 <= auto.batch_size(n_examples) <= 256


def test_dpo_has_the_shared_rules_and_its_beta() -> None:
    assert auto.resolve("dpo", {}, 100) == {**auto.resolve("supervised", {}, 100), "beta": 0.1}
    assert auto.resolve("dpo", {"beta": 2, "n_epochs": 1}, 100)["beta"] == 2
    assert auto.resolve("dpo", {"beta": "auto"}, 100)["beta"] == 0.1


@pytest.mark.parametrize(
    ("n_examples", "prompts", "epochs", "interval"),
    [(1, 1, 10, 1), (10, 8, 10, 2), (48, 8, 10, 7), (100, 8, 5, 8), (512, 8, 1, 8), (1000, 15, 1, 8), (50_000, 64, 1, 97)],
)
def test_reinforcement_aims_at_sixty_steps(n_examples: int, prompts: int, epochs: int, interval: int) -> None:
    assert auto.resolve("reinforcement", {"eval_interval": "auto"}, n_examples) == {
        "n_epochs": epochs,
        "batch_size": prompts,
        "learning_rate_multiplier": 1.0,
        "compute_multiplier": 1.0,
        "eval_interval": interval,
        "eval_samples": 1,
        "reasoning_effort": "default",
    }


def test_rules_that_count_steps_count_with_what_is_given() -> None:
    given = {"batch_size": 100, "eval_samples": 3, "reasoning_effort": "low", "compute_multiplier": 2.0}
    resolved = auto.resolve("reinforcement", given, 1000)
    assert resolved.items() >= {**given, "n_epochs": 6, "eval_interval": 7}.items()
    assert auto.resolve("reinforcement", {"n_epochs": 50}, 1000)["eval_interval"] == 418
    assert auto.resolve("reinforcement", {"eval_interval": 3}, 1000)["eval_interval"] == 3


@pytest.mark.parametrize(("multiplier", "samples"), [(0.0001, 2), (0.25, 2), (0.5, 4), (1, 8), (1.5, 12), (8, 64), (10, 64)])
def test_the_multiplier_scales_the_group(multiplier: float, samples: int) -> None:
    assert auto.group_size(multiplier) == samples


@given(n_examples=st.integers(1, 50_000))
def test_what_reinforcement_resolves_is_within_the_published_ranges(n_examples: int) -> None:
    resolved = auto.resolve("reinforcement", {}, n_examples)
    assert 1 <= resolved["batch_size"] <= min(64, n_examples)
    assert 1 <= resolved["n_epochs"] <= 10
    total = resolved["n_epochs"] * auto.steps_per_epoch(n_examples, resolved["batch_size"])
    assert 1 <= resolved["eval_interval"] <= total
