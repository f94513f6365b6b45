import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

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


def test_a_model_larger_than_the_memory_is_refused_with_both_sizes() -> None:
    check_memory(10_000)
    with pytest.raises(Refused, match=r"take 1000\.0 TB .*this machine has"):
        check_memory(10**15)
