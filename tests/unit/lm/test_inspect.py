import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tunesmith.data.folder import pins
from tunesmith.lm.inspect import Refused, check_config, check_memory, inspect

BaseFolder = Callable[[str], Path]


@pytest.fixture
def copy(base_folder: BaseFolder, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base_folder("llama"), tmp_path / "copy"))


def _edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize(
    ("family", "architecture"),
    [("llama", "LlamaForCausalLM"), ("qwen3", "Qwen3ForCausalLM"), ("gemma2", "Gemma2ForCausalLM")],
)
def test_families_are_taken_with_their_facts(base_folder: BaseFolder, family: str, architecture: str) -> None:
    facts = inspect(base_folder(family))
    assert (facts["architecture"], facts["model_type"], facts["context_length"]) == (architecture, family, 128)
    assert facts["pins"] == pins(base_folder(family))
    assert facts["n_parameters"] > 10_000
    assert facts["weights_bytes"] > 2 * facts["n_parameters"]


def test_the_process_prints_the_same_facts(base_folder: BaseFolder) -> None:
    command = [sys.executable, "-m", "tunesmith.lm.inspect", str(base_folder("llama"))]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout) == inspect(base_folder("llama"))


def test_the_process_prints_the_reason_of_a_refusal(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "tunesmith.lm.inspect", str(tmp_path / "absent")], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 1
    assert "There is no folder" in json.loads(answer.stdout)["refused"]


def test_code_of_the_model_is_never_run(copy: Path) -> None:
    (copy / "modeling.py").write_text("raise SystemExit('this ran')")
    _edit(copy / "config.json", auto_map={"AutoModelForCausalLM": "modeling.Model"})
    with pytest.raises(Refused, match="trust_remote_code is off"):
        inspect(copy)


@pytest.mark.parametrize("model_type", ["bert-of-tomorrow", "vit", ""])
def test_an_architecture_that_is_no_causal_model_is_refused(model_type: str) -> None:
    with pytest.raises(Refused, match="architecture"):
        check_config({"model_type": model_type})


def test_no_chat_template_is_refused(copy: Path) -> None:
    (copy / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((copy / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (copy / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(Refused, match=r"no chat template.*chat_template\.jinja"):
        inspect(copy)


def test_a_template_that_cannot_be_rendered_is_refused(copy: Path) -> None:
    (copy / "chat_template.jinja").write_text("{{ raise_exception('never') }}")
    with pytest.raises(Refused, match="cannot render one user message"):
        inspect(copy)


def test_a_knob_of_attention_that_the_engine_lacks_is_refused(copy: Path) -> None:
    _edit(copy / "config.json", attention_dropout=0.1)
    with pytest.raises(Refused, match="attention dropout"):
        inspect(copy)


def test_weights_of_another_shape_are_refused(copy: Path) -> None:
    _edit(copy / "config.json", intermediate_size=128)
    with pytest.raises(Refused, match="cannot be loaded and run"):
        inspect(copy)


def _reweigh(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_weights_that_are_absent_are_not_made_up(copy: Path) -> None:
    _reweigh(copy, lambda tensors: tensors.pop("model.layers.0.self_attn.q_proj.weight"))
    with pytest.raises(
        Refused, match=r"files lack weights of LlamaForCausalLM: model\.layers\.0\.self_attn\.q_proj\.weight"
    ):
        inspect(copy)


def test_weights_that_are_no_numbers_are_refused(copy: Path) -> None:
    _reweigh(copy, lambda tensors: tensors["model.norm.weight"].fill_(torch.nan))
    with pytest.raises(Refused, match="says what is no number: its weights are broken"):
        inspect(copy)


def test_a_head_that_is_said_to_be_there_and_is_not_is_not_made_up(copy: Path) -> None:
    _edit(copy / "config.json", tie_word_embeddings=False)
    with pytest.raises(Refused, match=r"files lack weights of LlamaForCausalLM: lm_head\.weight"):
        inspect(copy)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantised"),
        ({"quantization_config": {"quant_method": "of tomorrow"}}, "quantised"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "labels texts"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}}, "rope_type dynamic"),
    ],
)
def test_what_the_configuration_tells_of_another_kind_of_model_is_refused(
    copy: Path, changes: dict[str, object], told: str
) -> None:
    _edit(copy / "config.json", **changes)
    with pytest.raises(Refused, match=told):
        inspect(copy)


def test_a_tokenizer_of_more_tokens_than_the_model_has_is_refused(copy: Path) -> None:
    def shorten(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][:100].clone()

    _reweigh(copy, shorten)
    _edit(copy / "config.json", vocab_size=100)
    with pytest.raises(Refused, match=r"up to number 2\d\d, and the model has 100"):
        inspect(copy)


def test_a_model_larger_than_the_memory_is_refused_with_both_sizes() -> None:
    check_memory(10_000)
    with pytest.raises(Refused, match=r"take 1000\.0 TB .*this machine has"):
        check_memory(10**15)
