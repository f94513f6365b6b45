# pyright: basic
"""What is kept of a base that was proven, so that the next process builds it without transformers' modelling code.

The first process that loads a base of Llama's form takes transformers' modules, builds ours (`plain.py`) from the same
folder beside them, and compares: every weight bit by bit, the angles of the rotation, and hidden states. What it learnt of
the modules is put down under a name made of all that it depends on: weights, configuration, number type, the versions of
torch and transformers, and this package's own source. Whoever finds that name need neither load nor prove them again.
"""

import hashlib
import json
import os
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import structlog
import torch
from safetensors import safe_open
from torch import Tensor

from tunesmith.data.folder import CONFIG, weight_files
from tunesmith.lm import load as loading
from tunesmith.lm.attention import Layout
from tunesmith.lm.form import recognise
from tunesmith.lm.load import Base
from tunesmith.lm.lora import LoraModel
from tunesmith.lm.plain import DECODER, HEAD, Facts, Plain, RMSNorm

log = structlog.get_logger()

#: How far hidden states may lie from the modules' own, as relative L2: the operations are the same.
_TOLERANCE: Final = {torch.float32: 1e-6, torch.bfloat16: 2e-3}
_LENGTHS: Final = (11, 6)
#: Positions whose angles are compared.
_POSITIONS: Final = (0, 1, 2, 1023, 131_071)


def open_base(folder: Path, pins: dict[str, str], kept: Path | None) -> tuple[Base, LoraModel]:
    """Load a base for training on this machine, ready for adapters, and proven: now, or before by a process that said so.

    `pins` are those of the folder; `kept` is where proofs are put down, None for nowhere.

    Raises:
        BaseRefused: the architecture has a setting that this engine does not honour.
    """
    device = loading.choose_device()
    dtype = loading.choose_dtype(device)
    place = None if kept is None or device.type != "cpu" else kept / f"{_name(folder, pins, dtype)}.json"
    if place is not None and (base := _built(folder, place, dtype)) is not None:
        return base, LoraModel(base.model)
    base = loading.load(folder, device=device, dtype=dtype)
    loading.prove(base)
    lora = LoraModel(base.model)
    if place is not None and (facts := _facts(base, folder)) is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        unfinished = place.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps(asdict(facts)))
        unfinished.replace(place)
    return base, lora


def _name(folder: Path, pins: dict[str, str], dtype: torch.dtype) -> str:
    code = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        code.update(file.read_bytes())
    config = hashlib.sha256((folder / CONFIG).read_bytes()).hexdigest()
    parts = [pins["weights"], config, f"{dtype}", torch.__version__, version("transformers"), code.hexdigest()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _built(folder: Path, place: Path, dtype: torch.dtype) -> Base | None:
    try:
        facts = Facts(**json.loads(place.read_text()))
        return loading.wrap(Plain(facts, _tensors(folder, dtype)))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.warning("lm.blueprint", place=str(place), error=f"{type(error).__name__}: {error}")
        return None


def _tensors(folder: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return copies of all weights: what lies in the files may be written over while a training runs."""
    found: dict[str, Tensor] = {}
    for file in weight_files(folder):
        with safe_open(file, framework="pt") as weights:
            found |= {name: weights.get_tensor(name).to(dtype, copy=True) for name in weights.keys()}  # noqa: SIM118 - no mapping
    return found


@torch.no_grad()
def _facts(base: Base, folder: Path) -> Facts | None:
    """Return what builds the same base by our modules; None where they cannot."""
    model: Any = base.model
    form, head = recognise(base.decoder), base.head
    alike = {name for name, _ in model.named_children()} == {DECODER, HEAD} and model.base_model_prefix == DECODER
    if form is None or not alike or (head.bias_V, head.scale, head.softcap) != (None, 1.0, None):
        return None
    layers = form.layers
    rotary: Any = base.decoder.rotary_emb
    same = {(layer.head_size, layer.scaling) for layer in layers}
    windows: list[int | None] = []
    tokens_T = torch.arange(sum(_LENGTHS)) % head.weight_VC.shape[0]
    positions_T = torch.cat([torch.arange(n) for n in _LENGTHS])
    theirs_TC = base.hidden(
        tokens_T, positions_T, Layout(_LENGTHS, watch=lambda _, knobs: windows.append(knobs["sliding_window"]))
    )  # fmt: skip
    if len(same) != 1 or len(windows) != len(layers) or not isinstance(getattr(rotary, "inv_freq", None), Tensor):
        return None
    facts = Facts(
        eps={
            path: module.variance_epsilon
            for path, module in model.named_modules()
            if type(module).__name__.endswith(RMSNorm.__name__)
        },
        head_size=layers[0].head_size,
        scaling=layers[0].scaling,
        windows=windows,
        frequencies=rotary.inv_freq.tolist(),
        turn_scale=float(rotary.attention_scaling),
        tied=head.weight_VC is form.embedding_VC,
    )
    try:
        ours = loading.wrap(Plain(facts, _tensors(folder, base.dtype)))
    except KeyError:
        return None  # the files have other names than the modules
    place_1P = torch.tensor([_POSITIONS])
    own_rotary: Any = ours.decoder.rotary_emb
    turns: Any = zip(rotary(theirs_TC[None], place_1P), own_rotary(theirs_TC[None], place_1P), strict=True)
    ours_TC = ours.hidden(tokens_T, positions_T, Layout(_LENGTHS))
    distance = float((ours_TC - theirs_TC).float().norm() / theirs_TC.float().norm().clamp(min=1e-9))
    proven = distance <= _TOLERANCE.get(base.dtype, 0.0) and all(torch.equal(*pair) for pair in turns)
    if not proven or not _equal(model, ours.model):
        log.info("lm.modules_stay", model=type(model).__name__, distance=distance)
        return None
    return facts


def _equal(theirs: Any, ours: Any) -> bool:
    """Whether two models have the same weights under the same names."""
    mine = dict(ours.named_parameters())
    # an adapted layer stands around its linear layer
    its = {name.replace(".base.", "."): weight for name, weight in theirs.named_parameters()}
    return mine.keys() == its.keys() and all(torch.equal(weight, its[name]) for name, weight in mine.items())
