"""What `auto` stands for: hyperparameters from the number of training examples.

| hyperparameter | method | `auto` for n examples |
|---|---|---|
| n_epochs | supervised, dpo | 3; fewer than 34 examples: 100 // n, at most 25; more than 8,333: 25,000 // n, at least 1 |
| | reinforcement | as many as make about 60 steps, at least 1, at most 10 |
| batch_size | supervised, dpo | 0.2 % of n rounded down, at least 1, at most 256 |
| | reinforcement | n // 64 prompts, at least 8, at most 64, never more than n |
| learning_rate_multiplier | all | 1, which is this engine's own base learning rate |
| beta | dpo | 0.1 |
| compute_multiplier | reinforcement | 1, which is 8 samples a prompt |
| eval_interval | reinforcement | an eighth of all steps rounded down, at least 1 |
| eval_samples | reinforcement | 1 |

`reasoning_effort` has no `auto`; left out it is `default`. What was given stands, and the rules that count steps count with
it. The rules for n_epochs and batch_size of the first two methods are the ones that OpenAI published.

Pure functions; to add a method's own hyperparameter, give it a rule here.
"""

from collections.abc import Mapping
from typing import Any, Final

AUTO: Final = "auto"
LEARNING_RATE_MULTIPLIER: Final = 1.0
BETA: Final = 0.1
COMPUTE_MULTIPLIER: Final = 1.0
EVAL_SAMPLES: Final = 1
REASONING_EFFORT: Final = "default"

_TARGET_EPOCHS: Final = 3
_MIN_TARGET_EXAMPLES: Final = 100
_MAX_TARGET_EXAMPLES: Final = 25_000
_MAX_EPOCHS: Final = 25
_MAX_BATCH_SIZE: Final = 256
_EXAMPLES_PER_BATCH_ROW: Final = 500
#: Reinforcement: prompts per row of a batch, the span of batches, the steps to aim at, epochs at most, evaluations.
_PROMPTS_PER_BATCH_ROW: Final = 64
_PROMPTS: Final = (8, 64)
_TARGET_STEPS: Final = 60
_MAX_PROMPT_EPOCHS: Final = 10
_EVALUATIONS: Final = 8
#: Samples a prompt: for a multiplier of 1, and the fewest and the most; a group of one has nothing to be compared with.
_SAMPLES: Final = 8
_GROUP: Final = (2, 64)


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


def prompt_batch_size(n_examples: int) -> int:
    """Return the prompts of one step of reinforcement."""
    low, high = _PROMPTS
    return min(n_examples, max(low, min(high, n_examples // _PROMPTS_PER_BATCH_ROW)))


def prompt_epochs(steps: int) -> int:
    """Return how often prompts that make so many steps are gone through."""
    return max(1, min(_MAX_PROMPT_EPOCHS, round(_TARGET_STEPS / steps)))


def group_size(multiplier: float) -> int:
    """Return how many samples of a prompt are compared with each other, for a `compute_multiplier`."""
    low, high = _GROUP
    return max(low, min(high, round(_SAMPLES * multiplier)))


def resolve(method: str, hyperparameters: Mapping[str, Any], n_examples: int) -> dict[str, Any]:
    """Return the method's hyperparameters for n ≥ 1 examples: each `auto`, and each one left out, replaced by its value."""
    given = {key: value for key, value in hyperparameters.items() if value != AUTO and value is not None}
    rules = _prompt_rules(given, n_examples) if method == "reinforcement" else _rules(n_examples)
    if method == "dpo":
        rules["beta"] = BETA
    return {**rules, **given}


def _rules(n_examples: int) -> dict[str, Any]:
    return {
        "n_epochs": n_epochs(n_examples),
        "batch_size": batch_size(n_examples),
        "learning_rate_multiplier": LEARNING_RATE_MULTIPLIER,
    }


def _prompt_rules(given: Mapping[str, Any], n_examples: int) -> dict[str, Any]:
    size = given.get("batch_size", prompt_batch_size(n_examples))
    steps = steps_per_epoch(n_examples, size)
    epochs = given.get("n_epochs", prompt_epochs(steps))
    return {
        "n_epochs": epochs,
        "batch_size": size,
        "learning_rate_multiplier": LEARNING_RATE_MULTIPLIER,
        "compute_multiplier": COMPUTE_MULTIPLIER,
        "eval_interval": max(1, steps * epochs // _EVALUATIONS),
        "eval_samples": EVAL_SAMPLES,
        "reasoning_effort": REASONING_EFFORT,
    }


def steps_per_epoch(n_examples: int, batch_size: int) -> int:
    """Return the optimizer steps of one epoch; the last one may be of fewer examples."""
    return -(-n_examples // batch_size)
