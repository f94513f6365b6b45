"""Adapters are loaded on demand, dropped by least use, and never taken from under a row."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tunesmith.lm.adapter_file import WEIGHTS, AdapterRefused
from tunesmith.lm.lora import LoraModel
from tunesmith.sampler.adapters import Adapters


def _make(make_engine: Callable[..., Any], n_max: int) -> tuple[Adapters, LoraModel]:
    lora = make_engine("llama").lora
    return Adapters(lora, n_max=n_max), lora


def test_the_least_used_leaves(make_engine: Callable[..., Any], make_adapter: Callable[..., Any]) -> None:
    adapters, lora = _make(make_engine, 2)
    one, two, three = (make_adapter("llama", seed) for seed in (1, 2, 3))
    adapters.slot(*one)
    adapters.slot(*two)
    adapters.slot(*one)
    adapters.slot(*three)
    assert adapters.names() == [one[0], three[0]]
    assert len(lora.route.slots) == 2


def test_one_in_use_stays(make_engine: Callable[..., Any], make_adapter: Callable[..., Any]) -> None:
    adapters, lora = _make(make_engine, 1)
    one, two = make_adapter("llama", 1), make_adapter("llama", 2)
    used = adapters.slot(*one)
    adapters.slot(*two, in_use={used})
    assert adapters.names() == [one[0], two[0]]
    assert used in lora.route.slots


def test_a_forgotten_one_goes_with_its_last_row(make_engine: Callable[..., Any], make_adapter: Callable[..., Any]) -> None:
    adapters, lora = _make(make_engine, 4)
    slot = adapters.slot(*make_adapter("llama", 1))
    adapters.forget("llama-1")
    adapters.tidy({slot})
    assert slot in lora.route.slots
    adapters.tidy(())
    assert lora.route.slots == {}
    adapters.forget("never there")
    assert adapters.names() == []


def test_the_same_name_with_other_weights_is_loaded_anew(
    make_engine: Callable[..., Any], make_adapter: Callable[..., Any]
) -> None:
    adapters, _ = _make(make_engine, 4)
    one, two = make_adapter("llama", 1), make_adapter("llama", 2)
    first = adapters.slot("tuned", *one[1:])
    assert adapters.slot("tuned", *one[1:]) == first
    assert adapters.slot("tuned", *two[1:]) != first
    assert adapters.names() == ["tuned"]


def test_one_with_numbers_that_are_not_finite_is_refused(
    make_engine: Callable[..., Any], make_adapter: Callable[..., Any]
) -> None:
    adapters, lora = _make(make_engine, 4)
    name, folder, _ = make_adapter("llama", 1)
    tensors = load_file(folder / WEIGHTS)
    next(iter(tensors.values()))[0, 0] = torch.nan
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(AdapterRefused, match="not finite"):
        adapters.slot(name, folder, hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest())
    assert lora.route.slots == {}
