import hashlib
import json
import shutil
import struct
from pathlib import Path

import pytest

from tunesmith.data.folder import BrokenFolder, chat_template, fingerprint, pins, read_folder, weight_files


def _safetensors(path: Path, shapes: dict[str, list[int]]) -> None:
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2
        for length in shape:
            size *= length
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "max_position_embeddings": 64}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "from the tokenizer"}))
    _safetensors(tmp_path / "model.safetensors", {"a": [4, 8], "b": [3]})
    return tmp_path


def test_a_folder_tells_its_model(folder: Path) -> None:
    read = read_folder(folder)
    assert (read.architecture, read.model_type, read.context_length) == ("LlamaForCausalLM", "llama", 64)
    assert read.n_parameters == 35
    assert read.weights_bytes == (folder / "model.safetensors").stat().st_size


def test_context_comes_from_a_text_configuration_or_the_tokenizer(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"text_config": {"max_position_embeddings": 77}}))
    assert read_folder(folder).context_length == 77
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 99}))
    assert read_folder(folder).context_length == 99
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 10**30}))
    with pytest.raises(BrokenFolder, match="tells no context length"):
        read_folder(folder)


@pytest.mark.parametrize(
    ("turns", "length"),
    [
        ({"rope_scaling": {"type": "longrope"}, "original_max_position_embeddings": 16}, 16),
        ({"rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 32}}, 32),
        ({"rope_parameters": {"full": {"rope_type": "su", "original_max_position_embeddings": 8}, "window": {}}}, 8),
        ({"rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 128}}, 64),
        ({"rope_parameters": {"rope_type": "yarn", "original_max_position_embeddings": 16}}, 64),
        ({"rope_parameters": {"rope_type": "longrope"}}, 64),
    ],
)
def test_context_ends_where_all_positions_would_be_turned_otherwise(
    folder: Path, turns: dict[str, object], length: int
) -> None:
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 64, **turns}))
    assert read_folder(folder).context_length == length


def test_one_weight_file_is_pinned_by_its_own_hash(folder: Path) -> None:
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert pins(folder)["weights"] == digest
    assert pins(folder)["tokenizer"] == hashlib.sha256(b"{}").hexdigest()
    assert pins(folder)["template"] == hashlib.sha256(b"from the tokenizer").hexdigest()


def test_shards_are_pinned_together_and_all_have_to_be_there(folder: Path) -> None:
    shutil.move(folder / "model.safetensors", folder / "model-00002.safetensors")
    _safetensors(folder / "model-00001.safetensors", {"c": [5]})
    _safetensors(folder / "stray.safetensors", {"d": [7]})
    index = {"weight_map": {"a": "model-00002.safetensors", "c": "model-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert [file.name for file in weight_files(folder)] == ["model-00001.safetensors", "model-00002.safetensors"]
    assert read_folder(folder).n_parameters == 40
    lines = "".join(
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n"
        for name in ("model-00001.safetensors", "model-00002.safetensors")
    )
    assert pins(folder)["weights"] == hashlib.sha256(lines.encode()).hexdigest()
    (folder / "model-00001.safetensors").unlink()
    with pytest.raises(BrokenFolder, match=r"lacks model-00001\.safetensors"):
        pins(folder)


def test_weights_outside_of_the_folder_are_refused(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))
    with pytest.raises(BrokenFolder, match="outside of the folder"):
        read_folder(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_an_absent_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BrokenFolder, match=r"no config\.json|no tokenizer\.json|holds no weights"):
        read_folder(folder)


def test_pickled_weights_are_refused_with_the_reason(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BrokenFolder, match=r"pytorch_model\.bin.*run the code inside them"):
        read_folder(folder)


def test_half_a_weight_file_is_noticed(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    for broken in (whole[:-1], whole[:4], b"", b"\xff" * 20):
        (folder / "model.safetensors").write_bytes(broken)
        with pytest.raises(BrokenFolder, match="not a whole safetensors file"):
            read_folder(folder)


def test_no_folder_and_no_json_are_told(folder: Path) -> None:
    with pytest.raises(BrokenFolder, match="There is no folder"):
        read_folder(folder / "absent")
    (folder / "config.json").write_text("{")
    with pytest.raises(BrokenFolder, match="cannot be read as JSON"):
        read_folder(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(BrokenFolder, match="not a JSON object"):
        read_folder(folder)


def test_the_template_is_the_file_before_the_tokenizer_configuration(folder: Path) -> None:
    assert chat_template(folder) == "from the tokenizer"
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert chat_template(folder) == "d"
    (folder / "chat_template.jinja").write_text("from the file")
    assert chat_template(folder) == "from the file"
    (folder / "chat_template.jinja").unlink()
    (folder / "tokenizer_config.json").unlink()
    assert chat_template(folder) is None


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json"])
def test_a_fingerprint_changes_with_any_file(folder: Path, name: str) -> None:
    before = fingerprint(folder)
    assert fingerprint(folder) == before
    (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    assert fingerprint(folder) != before
