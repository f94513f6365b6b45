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
    assert auto.resolve({}, 100) == resolved
    assert auto.resolve(dict.fromkeys(resolved, "auto"), 100) == resolved
    assert auto.resolve({"n_epochs": 7, "batch_size": None}, 100) == {**resolved, "n_epochs": 7}
    assert auto.resolve({"learning_rate_multiplier": 0.1, "beta": 0.2}, 100) == {
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
