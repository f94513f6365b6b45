# pyright: basic
"""The registry: every method that a job can name, and nothing else."""

from collections.abc import Mapping
from typing import Any, Final

from tunesmith.methods.base import Method
from tunesmith.methods.dpo import Dpo
from tunesmith.methods.reinforcement import Reinforcement
from tunesmith.methods.supervised import Supervised

METHODS: Final[dict[str, type[Method]]] = {each.name: each for each in (Supervised, Dpo, Reinforcement)}


def method(name: str, hyperparameters: Mapping[str, Any] | None = None) -> Method:
    """Return the method a job names, with those of its resolved hyperparameters that its loss takes.

    Raises:
        ValueError: there is none; the message lists those that exist.
    """
    if name not in METHODS:
        raise ValueError(f"There is no training method `{name}`; there are: {', '.join(sorted(METHODS))}.")
    chosen, given = METHODS[name], hyperparameters or {}
    return chosen(**{knob: given[knob] for knob in chosen.loss_knobs if knob in given})
