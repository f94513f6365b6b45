"""Bases of Llama's form: proven beside transformers' modules once, then built without them, to the same bits."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tunesmith.lm import blueprint, load
from tunesmith.lm.attention import Layout
from tunesmith.lm.blueprint import open_base
from tunesmith.lm.load import Base, choose_device
from tunesmith.lm.lora import LoraModel, Span, linear_layers
from tunesmith.lm.plain import Plain
from tunesmith.lm.score import Packed, score

PINS = {"weights": "0" * 64}
LENGTHS = ((5, 4, 3), 8)
_STEP = """
import sys
from pathlib import Path
from tunesmith.engine.optim import Optimizer
from tunesmith.lm import load
from tunesmith.lm.blueprint import open_base
import torch
base, lora = open_base(Path(sys.argv[1]), {"weights": "0" * 64}, Path(sys.argv[2]))
adapter = lora.fresh(seed=0)
parameters = adapter.parameters()
parameters[0].grad = torch.ones_like(parameters[0])
Optimizer(parameters, total_steps=1, peak=1.0).update(1.0)
print(type(base.model).__name__, *sorted({"transformers", "torch._dynamo", "sympy"} & set(sys.modules)))
"""


@pytest.fixture(params=[torch.float32, torch.bfloat16])
def dtype(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.dtype:
    monkeypatch.setattr(load, "choose_dtype", lambda _: request.param)
    return request.param


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "base"


def gradients(base: Base, lora: LoraModel) -> list[torch.Tensor]:
    """Return the slopes of what a fixed adapter says of a fixed row, and the log-probabilities."""
    adapter = lora.fresh(seed=3)
    generator = torch.Generator().manual_seed(5)
    for factor in adapter.parameters():
        factor.data.add_(torch.randn(factor.shape, generator=generator) * 0.1)
    adapter.sync()
    lora.place(0, adapter)
    tokens_T = torch.arange(20) * 7 % base.head.weight_VC.shape[0]
    positions_T = torch.tensor([*range(9), 5, 6, 7, *range(8)])
    asked_N = torch.tensor([4, 6, 10, 13, 18])
    packed = Packed(tokens_T, positions_T, LENGTHS, (Span(0, 0, 20),), asked_N, tokens_T[asked_N + 1])
    logp_N = score(base, lora, packed).logp_N
    logp_N.sum().backward()
    return [logp_N.detach(), *(factor.grad for factor in adapter.parameters() if factor.grad is not None)]


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0,
                                       "high_freq_factor": 4.0, "original_max_position_embeddings": 32}}),
        ("qwen3", {}),
        ("mistral", {}),
    ],
)  # fmt: skip
def test_what_was_proven_is_built_again_to_the_same_bits(
    make_model: Callable[..., Any], folder: Path, dtype: torch.dtype, family: str, changes: dict[str, Any]
) -> None:
    make_model(family, **changes).save_pretrained(folder)
    theirs, their_lora = open_base(folder, PINS, folder / "kept")
    ours, our_lora = open_base(folder, PINS, folder / "kept")
    assert not isinstance(theirs.model, Plain)
    assert isinstance(ours.model, Plain)
    assert ours.dtype == theirs.dtype == dtype
    assert [*their_lora.layers] == [*our_lora.layers]
    row_T = torch.arange(20) % 97
    hidden = [each.hidden(row_T, row_T, Layout(LENGTHS)) for each in (theirs, ours)]
    assert torch.equal(*hidden)
    pairs = zip(gradients(theirs, their_lora), gradients(ours, our_lora), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize("family", ["gemma3", "qwen3_moe"])
def test_another_form_keeps_its_modules(make_model: Callable[..., Any], folder: Path, family: str) -> None:
    make_model(family).save_pretrained(folder)
    for _ in range(2):
        base, _ = open_base(folder, PINS, folder / "kept")
        assert not isinstance(base.model, Plain)
    assert not (folder / "kept").exists()


def test_a_proof_is_of_weights_configuration_and_code(
    make_model: Callable[..., Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model("qwen3").save_pretrained(folder)
    kept = folder / "kept"

    def built(pins: dict[str, str] = PINS) -> bool:
        return isinstance(open_base(folder, pins, kept)[0].model, Plain)

    assert [built(), built()] == [False, True]
    assert not built({"weights": "1" * 64})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.1}))
    assert [built(), built()] == [False, True]
    monkeypatch.setattr(blueprint, "version", lambda _: "another")
    assert [built(), built()] == [False, True]
    assert not isinstance(open_base(folder, PINS, None)[0].model, Plain)


def test_a_broken_blueprint_is_passed_over(make_model: Callable[..., Any], folder: Path) -> None:
    make_model("qwen3").save_pretrained(folder)
    open_base(folder, PINS, folder / "kept")
    (place,) = (folder / "kept").iterdir()
    whole = place.read_text()
    for broken in ("{", "{}", "[]", whole.replace("q_norm", "p_norm")):
        place.write_text(broken)
        base, _ = open_base(folder, PINS, folder / "kept")
        assert not isinstance(base.model, Plain)
        assert place.read_text() == whole


def test_modules_that_compute_otherwise_stay(
    make_model: Callable[..., Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model("qwen3").save_pretrained(folder)
    honest = blueprint.RMSNorm.forward
    monkeypatch.setattr(blueprint.RMSNorm, "forward", lambda norm, x: honest(norm, x) * 1.01)
    open_base(folder, PINS, folder / "kept")
    assert not (folder / "kept").exists()


def test_weights_that_are_written_over_do_not_reach_a_training(make_model: Callable[..., Any], folder: Path) -> None:
    make_model("qwen3").save_pretrained(folder)
    open_base(folder, PINS, folder / "kept")
    base, _ = open_base(folder, PINS, folder / "kept")
    before = [linear.weight.clone() for _, linear in linear_layers(base.model)]
    file = folder / "model.safetensors"
    with file.open("r+b") as stream:
        stream.seek(file.stat().st_size // 2)
        stream.write(bytes(file.stat().st_size // 2))
    assert all(
        torch.equal(*pair) for pair in zip(before, (each.weight for _, each in linear_layers(base.model)), strict=True)
    )


def test_neither_transformers_nor_torchs_compiler_is_imported(make_model: Callable[..., Any], folder: Path) -> None:
    make_model("qwen3").save_pretrained(folder)
    open_base(folder, PINS, folder / "kept")
    assert choose_device().type == "cpu"
    command = [sys.executable, "-c", _STEP, str(folder), str(folder / "kept")]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert told == ["Plain"]
