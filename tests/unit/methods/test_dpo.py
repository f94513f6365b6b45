"""Pairs as groups of two examples that begin alike and are trained in their last message alone."""

from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tunesmith.data.pairs import Pair
from tunesmith.data.render import Example, Renderer
from tunesmith.methods.dpo import Dpo, DpoConfig, DpoHyperparameters
from tunesmith.methods.method import method


def said(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


INPUT = [said("user", "one"), said("assistant", "two"), said("user", "three")]


@pytest.fixture(scope="module")
def renderer(base_folder: Callable[[str], Path]) -> Renderer:
    return Renderer.load(base_folder("qwen3"))


def groups(renderer: Renderer, preferred: str, other: str, max_tokens: int = 500) -> list[tuple[Example, ...]]:
    row = Pair(1, 1, INPUT, None, None, said("assistant", preferred), said("assistant", other))
    return Dpo().groups(row, renderer, max_tokens=max_tokens)


def trained(renderer: Renderer, example: Example) -> str:
    tokens = [token for token, weight in zip(example.tokens, example.weights, strict=True) if weight]
    return renderer.decode(tokens, skip_special_tokens=False)


def test_a_pair_is_one_group_of_two_that_begin_alike(renderer: Renderer) -> None:
    before = [dict(message) for message in INPUT]
    ((preferred, other),) = groups(renderer, "good", "bad")
    assert trained(renderer, preferred) == "good<|im_end|>"
    assert trained(renderer, other) == "bad<|im_end|>"
    n_alike = sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(preferred.tokens, other.tokens, strict=False)))
    assert preferred.tokens[:n_alike] == tuple(renderer.prompt(INPUT))
    assert before == INPUT


@given(preferred=st.text("aé 📦\n", max_size=4), other=st.text("aé 📦\n", max_size=4), more=st.integers(-3, 20))
def test_whatever_is_said_only_the_answer_is_trained(renderer: Renderer, preferred: str, other: str, more: int) -> None:
    prompt = renderer.prompt(INPUT)
    (group,) = groups(renderer, preferred, other, max_tokens=len(prompt) + more)
    for example, answer in zip(group, (preferred, other), strict=True):
        n_answer = len(answer.encode()) + 1
        assert example.tokens[: len(prompt)] == tuple(prompt)[: len(prompt) + more]
        assert not any(example.weights[: len(prompt)])
        assert example.n_trained == max(0, min(n_answer, more))


def test_both_are_cut(renderer: Renderer) -> None:
    n_prompt = len(renderer.prompt(INPUT))
    ((preferred, other),) = groups(renderer, "a" * 20, "b", max_tokens=n_prompt + 1)
    assert (len(preferred.tokens), preferred.n_trained, preferred.truncated) == (n_prompt + 1, 1, True)
    assert (other.n_trained, other.truncated) == (1, True)


def test_the_method_is_found_and_its_knobs_have_the_published_ranges() -> None:
    assert isinstance(method("dpo"), Dpo)
    assert DpoConfig().hyperparameters.model_dump() == dict.fromkeys(
        ("batch_size", "learning_rate_multiplier", "n_epochs", "beta"), "auto"
    )
    assert DpoHyperparameters(beta=2).beta == 2
    for beta in (0, 2.1, "much"):
        with pytest.raises(ValidationError):
            DpoHyperparameters.model_validate({"beta": beta})
