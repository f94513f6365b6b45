from collections.abc import Callable
from typing import Any

import pytest
import torch

from tunesmith.engine.memory import CPU_TOKENS, bytes_per_token, token_budget
from tunesmith.lm.load import Base


def test_on_a_cpu_it_is_fixed(make_base: Callable[..., Base]) -> None:
    assert token_budget(make_base()) == CPU_TOKENS


def test_a_token_costs_by_layers_widths_and_type(make_base: Callable[..., Base]) -> None:
    config: Any = make_base().model.config
    assert bytes_per_token(config, torch.float32) == 2 * (16 * 32 + 5 * 48) * 4
    assert bytes_per_token(config, torch.bfloat16) * 2 == bytes_per_token(config, torch.float32)


@pytest.mark.parametrize(("free", "expected"), [(0, CPU_TOKENS), (24_000_000, 2393), (10**12, 65536)])
def test_on_a_gpu_it_follows_the_free_memory(
    make_base: Callable[..., Base], monkeypatch: pytest.MonkeyPatch, free: int, expected: int
) -> None:
    from dataclasses import replace

    base = replace(make_base(), device=torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, free))
    assert token_budget(base) == expected
