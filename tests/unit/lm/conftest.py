"""Tiny models of several families, built in code with random weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from parity.families import tiny_config, tiny_model
from tunesmith.lm.load import Base, wrap


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def make_model() -> Callable[..., Any]:
    """Return `tiny_model`."""
    return tiny_model


@pytest.fixture
def make_config() -> Callable[[str], Any]:
    """Return `tiny_config`."""
    return tiny_config


@pytest.fixture
def make_base() -> Callable[..., Base]:
    """Return a function that makes a tiny base of a family."""
    return lambda family, **knobs: wrap(tiny_model(family, **knobs))
