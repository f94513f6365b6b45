"""What `auto` stands for: hyperparameters from the number of training examples, by the rules OpenAI published.

| hyperparameter | `auto` for n examples |
|---|---|
| n_epochs | 3; fewer than 34 examples: 100 // n, at most 25; more than 8,333: 25,000 // n, at least 1 |
| batch_size | 0.2 % of n rounded down, at least 1, at most 256 |
| learning_rate_multiplier | 1, which is this engine's own base learning rate |

Pure functions; to add a method's own hyperparameter, give it a rule here.
"""

from collections.abc import Mapping
from typing import Any, Final

AUTO: Final = "auto"
LEARNING_RATE_MULTIPLIER: Final = 1.0

_TARGET_EPOCHS: Final = 3
_MIN_TARGET_EXAMPLES: Final = 100
_MAX_TARGET_EXAMPLES: Final = 25_000
_MAX_EPOCHS: Final = 25
_MAX_BATCH_SIZE: Final = 256
_EXAMPLES_PER_BATCH_ROW: Final = 500


def n_epochs(n_examples: int) -> int:
    """Return how often n ≥ 1 examples are gone through: three times, unless that is too little or too much training."""
    seen = _TARGET_EPOCHS * n_examples
    if seen < _MIN_TARGET_EXAMPLES:
        return min(_MAX_EPOCHS, _MIN_TARGET_EXAMPLES // n_examples)
    if seen > _MAX_TARGET_EXAMPLES:
        return max(1, _MAX_TARGET_EXAMPLES // n_examples)
    return _TARGET_EPOCHS


def batch_size(n_examples: int) -> int:
    """Return the examples of one optimizer step."""
    return max(1, min(_MAX_BATCH_SIZE, n_examples // _EXAMPLES_PER_BATCH_ROW))


def resolve(hyperparameters: Mapping[str, Any], n_examples: int) -> dict[str, Any]:
    """Return the three shared hyperparameters with every `auto`, and every one left out, replaced by its value."""
    rules: dict[str, Any] = {
        "n_epochs": n_epochs(n_examples),
        "batch_size": batch_size(n_examples),
        "learning_rate_multiplier": LEARNING_RATE_MULTIPLIER,
    }
    given = {key: value for key, value in hyperparameters.items() if value != AUTO and value is not None}
    return {**rules, **given}


def steps_per_epoch(n_examples: int, batch_size: int) -> int:
    """Return the optimizer steps of one epoch; the last one may be of fewer examples."""
    return -(-n_examples // batch_size)
