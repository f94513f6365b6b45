import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tunesmith.lm import adapter_file
from tunesmith.lm.adapter_file import AdapterRefused, from_folder, to_files
from tunesmith.lm.load import Base
from tunesmith.lm.lora import Adapter, LoraModel, Span
from tunesmith.lm.score import Packed, score

TOKENS = torch.tensor([5, 9, 33, 2, 80, 17, 17, 60])


def write(folder: Path, adapter: Adapter) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in to_files(adapter, base_name="tiny").items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def trained(make_base: Callable[..., Base]) -> tuple[Base, LoraModel, Adapter]:
    base = make_base("gemma3")
    lora = LoraModel(base.model)
    adapter = lora.fresh(seed=4, rank=8, alpha=24)
    with torch.no_grad():
        for pair in adapter.pairs.values():
            pair.b_OR.normal_(0, 0.1, generator=torch.Generator().manual_seed(4))
    lora.place(0, adapter)
    return base, lora, adapter


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_peft_loads_it_and_gives_the_same_logits(
    trained: tuple[Base, LoraModel, Adapter], make_model: Callable[..., Any], tmp_path: Path
) -> None:
    from peft import PeftModel

    base, lora, adapter = trained
    n = len(TOKENS)
    packed = Packed(TOKENS, torch.arange(n), (n,), (Span(0, 0, n),), torch.arange(n - 1), TOKENS[1:])
    ours = score(base, lora, packed).logp_N
    model = PeftModel.from_pretrained(make_model("gemma3", attn="eager"), write(tmp_path / "a", adapter))
    with torch.no_grad():
        logits = model(input_ids=TOKENS[None]).logits[0, :-1]
    theirs = torch.log_softmax(logits, -1).gather(1, TOKENS[1:, None])[:, 0]
    torch.testing.assert_close(ours.detach(), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral", "glm4_moe", "phimoe"])
def test_of_a_mixture_of_experts_peft_loads_every_tensor(
    make_base: Callable[..., Base], make_model: Callable[..., Any], tmp_path: Path, family: str
) -> None:
    """Where a base has MLPs beside its experts, PEFT would take their adapters for the experts' and drop them."""
    from peft import PeftModel

    base = make_base(family)
    lora = LoraModel(base.model)
    adapter = lora.fresh(seed=4, rank=8)
    with torch.no_grad():
        for pair in adapter.pairs.values():
            pair.b_OR.normal_(0, 0.1, generator=torch.Generator().manual_seed(4))
    lora.place(0, adapter)
    n = len(TOKENS)
    packed = Packed(TOKENS, torch.arange(n), (n,), (Span(0, 0, n),), torch.arange(n - 1), TOKENS[1:])
    ours = score(base, lora, packed).logp_N
    model = PeftModel.from_pretrained(make_model(family, attn="eager", experts="eager"), write(tmp_path / "a", adapter))
    loaded = {name for name, _ in model.named_parameters() if "lora_" in name}
    assert {name.removeprefix("base_model.model.").removesuffix(".default.weight") for name in loaded} == set(
        adapter.tensors()
    )
    with torch.no_grad():
        logits = model.eval()(input_ids=TOKENS[None]).logits[0, :-1]
    theirs = torch.log_softmax(logits, -1).gather(1, TOKENS[1:, None])[:, 0]
    torch.testing.assert_close(ours.detach(), theirs, rtol=1e-4, atol=1e-5)


def test_it_comes_back_bit_by_bit(trained: tuple[Base, LoraModel, Adapter], tmp_path: Path) -> None:
    _, lora, adapter = trained
    back = from_folder(write(tmp_path / "a", adapter), lora)
    assert (back.rank, back.alpha) == (8, 24)
    assert all(torch.equal(tensor, back.tensors()[name]) for name, tensor in adapter.tensors().items())


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_adapter_saved_by_peft_is_read(
    trained: tuple[Base, LoraModel, Adapter], make_model: Callable[..., Any], tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    _, lora, _ = trained
    theirs = get_peft_model(make_model("gemma3", attn="eager"), LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
    theirs.save_pretrained(tmp_path)
    read = from_folder(tmp_path, lora)
    assert (read.rank, read.alpha) == (16, 32)
    path = "model.layers.0.self_attn.q_proj"
    weight = theirs.get_submodule(f"base_model.model.{path}").lora_A["default"].weight
    assert torch.equal(read.pairs[path].a_RI, weight)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"r": 12}, "rank 12"),
        ({"r": 16}, "does not fit"),
    ],
)
def test_anything_but_plain_lora_that_fits_is_refused(
    trained: tuple[Base, LoraModel, Adapter], tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    _, lora, adapter = trained
    folder = write(tmp_path / "a", adapter)
    config = json.loads((folder / adapter_file.CONFIG).read_text())
    (folder / adapter_file.CONFIG).write_text(json.dumps(config | change))
    with pytest.raises(AdapterRefused, match=told):
        from_folder(folder, lora)


def test_an_absent_file_is_told(trained: tuple[Base, LoraModel, Adapter], tmp_path: Path) -> None:
    _, lora, adapter = trained
    (write(tmp_path / "a", adapter) / adapter_file.WEIGHTS).unlink()
    for folder in (tmp_path / "a", tmp_path / "nowhere"):
        with pytest.raises(AdapterRefused, match="holds no adapter"):
            from_folder(folder, lora)
