"""Exported models, loaded by those whom they are written for: PEFT, transformers, and the reader of GGUF."""

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from near import random_adapter
from near.folders import make_folder
from tunesmith.lm import export
from tunesmith.lm.adapter_file import CONFIG, WEIGHTS, from_folder
from tunesmith.lm.attention import Layout
from tunesmith.lm.load import load
from tunesmith.lm.lora import LoraModel, Span
from tunesmith.lm.merge import ExportRefused, Weights, read_correction

TOKENS = [5, 90, 17, 200, 8, 8, 133, 61, 77, 250, 3, 42]


@dataclass(frozen=True)
class Tuned:
    """A base's folder and an adapter's."""

    base: Path
    adapter: Path

    @property
    def sha256(self) -> str:
        return hashlib.sha256((self.adapter / WEIGHTS).read_bytes()).hexdigest()

    @property
    def wanted(self) -> dict[str, Any]:
        return {
            "base": str(self.base), "adapter": str(self.adapter), "sha256": self.sha256, "readme": "# mine\n",
            "base_reference": "org/base", "revision": "v1", "name": "mine",
        }  # fmt: skip

    @property
    def weights(self) -> Weights:
        return Weights(self.base, read_correction(self.adapter, self.sha256))

    def log_probabilities(self) -> Tensor:
        """Return what we compute."""
        base = load(self.base, device=torch.device("cpu"), dtype=torch.float32)
        lora = LoraModel(base.model)
        lora.place(0, from_folder(self.adapter, lora))
        lora.route.spans = (Span(0, 0, len(TOKENS)),)
        with torch.no_grad():
            hidden = base.hidden(torch.tensor(TOKENS), torch.arange(len(TOKENS)), Layout((len(TOKENS),)))
            return base.head.logits(hidden).float().log_softmax(-1)


def tuned(tmp_path: Path, family: str, **changes: Any) -> Tuned:
    base = make_folder(tmp_path / "base", family, **changes)
    (tmp_path / "adapter").mkdir()
    for name, content in random_adapter(base, strength=0.3).items():
        (tmp_path / "adapter" / name).write_bytes(content)
    return Tuned(base, tmp_path / "adapter")


def unpacked(members: list[export.Member], folder: Path) -> Path:
    content = b"".join(bytes(chunk) for chunk in export.tarred(members))
    assert len(content) == export.tar_bytes(members)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        tar.extractall(folder, filter="data")
    return folder


@torch.no_grad()
def said_by(model: Any) -> Tensor:
    return model.eval()(torch.tensor([TOKENS])).logits[0].float().log_softmax(-1)


def loaded(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral", "gemma", "mixtral", "qwen3_moe", "glm4_moe"])
def test_merged_and_adapter_say_what_we_say(tmp_path: Path, family: str) -> None:
    model = tuned(tmp_path, family)
    ours = model.log_probabilities()
    assert (said_by(loaded(model.base)) - ours).abs().max() > 0.1  # the adapter matters
    adapter = unpacked(export.adapter(model.wanted), tmp_path / "out-adapter")
    by_peft = said_by(peft.PeftModel.from_pretrained(loaded(model.base), str(adapter)))
    assert (by_peft - ours).abs().max() < 1e-3
    merged = unpacked(export.merged(model.wanted), tmp_path / "out-merged")
    assert (said_by(loaded(merged)) - ours).abs().max() < 1e-3


def test_a_merged_folder_is_the_bases_with_other_weights(tmp_path: Path) -> None:
    model = tuned(tmp_path, "qwen3", dtype=torch.bfloat16, shard="40KB")
    (model.base / "LICENSE.txt").write_text("free")
    (model.base / "notes.txt").write_text("not a part of the model")
    merged = unpacked(export.merged(model.wanted), tmp_path / "merged")
    names = {path.name for path in model.base.iterdir()} - {"notes.txt"}
    assert len([name for name in names if name.endswith(".safetensors")]) > 1
    assert {path.name for path in merged.iterdir()} == names | {"README.md"}
    changed = {name for name in names if (merged / name).read_bytes() != (model.base / name).read_bytes()}
    assert changed <= {name for name in names if name.endswith(".safetensors")}
    before, after = ({**each} for each in (_tensors(model.base), _tensors(merged)))
    assert before.keys() == after.keys()
    correction = read_correction(model.adapter, model.sha256)
    for name, tensor in after.items():
        assert tensor.dtype == before[name].dtype == torch.bfloat16
        factors = correction.factors.get(name.removesuffix(".weight"))
        if factors is None:
            assert torch.equal(tensor, before[name]), name
        else:
            exact = before[name].double() + correction.scale * factors[1].double() @ factors[0].double()
            assert (tensor.double() - exact).abs().le(exact.abs() * 2**-8 + 1e-6).all(), name  # rounded once


def _tensors(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def test_an_adapters_config_names_its_base(tmp_path: Path) -> None:
    model = tuned(tmp_path, "llama")
    folder = unpacked(export.adapter(model.wanted), tmp_path / "out")
    assert {path.name for path in folder.iterdir()} == {CONFIG, WEIGHTS, "README.md"}
    config = json.loads((folder / CONFIG).read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/base", "v1")
    assert (folder / WEIGHTS).read_bytes() == (model.adapter / WEIGHTS).read_bytes()
    assert (folder / "README.md").read_text() == "# mine\n"


def test_a_base_is_copied(tmp_path: Path) -> None:
    base = make_folder(tmp_path / "base", "llama")
    copy = unpacked(export.merged({"base": str(base), "adapter": None, "readme": ""}), tmp_path / "copy")
    assert (copy / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()


def test_files_that_are_removed_meanwhile_are_read_to_the_end(tmp_path: Path) -> None:
    model = tuned(tmp_path, "qwen3", shard="40KB")
    expected = unpacked(export.merged(model.wanted), tmp_path / "before")
    members = export.merged(model.wanted)
    shutil.rmtree(model.base)
    shutil.rmtree(model.adapter)
    after = unpacked(members, tmp_path / "after")
    for path in expected.iterdir():
        assert (after / path.name).read_bytes() == path.read_bytes()


def test_what_cannot_be_merged_is_refused(tmp_path: Path) -> None:
    model = tuned(tmp_path, "llama")
    with pytest.raises(ExportRefused, match="sha256"):
        read_correction(model.adapter, "0" * 64)
    correction = read_correction(model.adapter, model.sha256)
    renamed = {f"other.{path}": factors for path, factors in correction.factors.items()}
    with pytest.raises(ExportRefused, match="under another name"):
        Weights(model.base, type(correction)(renamed, 1.0))
    sha256 = model.sha256
    (model.adapter / WEIGHTS).unlink()
    with pytest.raises(ExportRefused, match=r"adapter_model\.safetensors is absent"):
        read_correction(model.adapter, sha256)


def test_weights_that_are_no_plain_numbers_are_refused(tmp_path: Path) -> None:
    model = tuned(tmp_path, "llama")
    _retyped(model.base / "model.safetensors", "self_attn.q_proj.weight", "I32")
    with pytest.raises(ExportRefused, match="q_proj is stored as I32"):
        Weights(model.base, read_correction(model.adapter, model.sha256))


def _retyped(file: Path, ending: str, dtype: str) -> None:
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    for name in _matching(header, ending):
        header[name]["dtype"] = dtype
    told = json.dumps(header).encode()
    file.write_bytes(len(told).to_bytes(8, "little") + told + content[8 + length :])


def _matching(names: Iterable[str], ending: str) -> list[str]:
    return [name for name in names if name.endswith(ending)]
