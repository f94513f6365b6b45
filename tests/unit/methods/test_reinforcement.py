"""Prompts to sample from, and the knobs of a reinforcement job."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tunesmith.data.prompts import PromptRow
from tunesmith.data.render import Renderer
from tunesmith.data.thinking import thinking
from tunesmith.methods.method import method
from tunesmith.methods.reinforcement import Reinforcement, ReinforcementConfig, ReinforcementHyperparameters

ROW = PromptRow(1, 1, [{"role": "user", "content": "one"}], item={"answer": 4})


def test_a_row_is_a_prompt_and_nothing_to_train_on(base_folder: Callable[[str], Path]) -> None:
    renderer = Renderer.load(base_folder("qwen3"))
    assert Reinforcement().groups(ROW, renderer, max_tokens=100) == []
    for switch in (None, False, True):
        assert Reinforcement().prompt(ROW, renderer, switch) == renderer.prompt(ROW.messages)


@pytest.mark.parametrize(
    ("effort", "thinks"),
    [("default", None), ("none", False), ("minimal", False), ("low", True), ("high", True), ("max", True)],
)
def test_efforts_turn_the_switch(effort: str, thinks: bool | None) -> None:
    assert thinking(effort) is thinks


def test_the_method_is_found_and_its_knobs_have_the_published_ranges() -> None:
    assert isinstance(method("reinforcement"), Reinforcement)
    config = ReinforcementConfig(grader={"type": "string_check"})
    assert config.hyperparameters.compute_multiplier == "auto"
    assert config.hyperparameters.reasoning_effort == "default"
    refused: list[dict[str, Any]] = [
        {"compute_multiplier": 1e-5}, {"compute_multiplier": 11}, {"eval_interval": 0}, {"eval_samples": 0},
        {"reasoning_effort": "much"}, {"beta": 0.1},
    ]  # fmt: skip
    for knobs in refused:
        with pytest.raises(ValidationError):
            ReinforcementHyperparameters.model_validate(knobs)
    with pytest.raises(ValidationError):
        ReinforcementConfig.model_validate({})
