import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tunesmith.blobs.local import LocalBlobs
from tunesmith.engine import checkpoints
from tunesmith.engine.checkpoints import CheckpointRefused, Cursor
from tunesmith.lm.lora import Adapter, LoraModel

RECIPE: dict[str, Any] = {"base": "tiny", "pins": {"weights": "w", "tokenizer": "t"}, "seed": 7}
CURSOR = Cursor(12, 3456, {"train_loss": 0.25})
MOMENTS = {"0.exp_avg": torch.tensor([1.0, 2.0]), "0.exp_avg_sq": torch.tensor([3.0, 4.0])}


@pytest.fixture
def adapter() -> Adapter:
    return LoraModel(torch.nn.Sequential(torch.nn.Linear(6, 4))).fresh(seed=1, rank=1)


@pytest.fixture
def folder(blobs: LocalBlobs, adapter: Adapter) -> Path:
    checkpoints.write(blobs, "c/12", adapter=adapter, optimizer=MOMENTS, cursor=CURSOR, recipe=RECIPE)
    return blobs.path("c/12")


def test_what_is_written_comes_back(blobs: LocalBlobs, folder: Path) -> None:
    loaded = checkpoints.read(blobs, "c/12", recipe=RECIPE)
    assert loaded.cursor == CURSOR
    assert loaded.folder == folder
    assert all(torch.equal(tensor, loaded.optimizer[name]) for name, tensor in MOMENTS.items())


def test_the_manifest_names_every_file_with_its_hash(folder: Path) -> None:
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    assert manifest["version"] == 1
    assert manifest["pins"] == RECIPE["pins"]
    assert set(manifest["files"]) == {file.name for file in folder.iterdir()} - {"MANIFEST.json"}
    assert set(manifest["files"]) >= {"adapter_model.safetensors", "adapter_config.json"}
    for name, facts in manifest["files"].items():
        content = (folder / name).read_bytes()
        assert facts == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def test_the_hash_told_is_the_adapters(blobs: LocalBlobs, adapter: Adapter) -> None:
    saved = checkpoints.write(blobs, "c/13", adapter=adapter, optimizer={}, cursor=CURSOR, recipe=RECIPE)
    weights = (blobs.path("c/13") / "adapter_model.safetensors").read_bytes()
    assert saved.sha256 == hashlib.sha256(weights).hexdigest()
    assert checkpoints.read(blobs, "c/13", recipe=RECIPE).adapter_sha256 == saved.sha256


def test_a_checkpoint_is_never_written_over(blobs: LocalBlobs, folder: Path, adapter: Adapter) -> None:
    assert folder.is_dir()
    with pytest.raises(FileExistsError):
        checkpoints.write(blobs, "c/12", adapter=adapter, optimizer={}, cursor=CURSOR, recipe=RECIPE)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "optimizer.safetensors", "cursor.json", "MANIFEST.json"])
def test_an_absent_file_makes_it_incomplete(blobs: LocalBlobs, folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointRefused, match=f"incomplete: .*{name}"):
        checkpoints.read(blobs, "c/12", recipe=RECIPE)


def test_a_changed_byte_is_damage(blobs: LocalBlobs, folder: Path) -> None:
    with (folder / "adapter_model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(CheckpointRefused, match=r"adapter_model\.safetensors does not have its hash"):
        checkpoints.read(blobs, "c/12", recipe=RECIPE)


def test_a_manifest_that_is_not_json_or_of_another_version_is_refused(blobs: LocalBlobs, folder: Path) -> None:
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    (folder / "MANIFEST.json").write_text(json.dumps(manifest | {"version": 2}))
    with pytest.raises(CheckpointRefused, match="version 2, and this release reads 1"):
        checkpoints.read(blobs, "c/12", recipe=RECIPE)
    (folder / "MANIFEST.json").write_text("{")
    with pytest.raises(CheckpointRefused, match="not JSON"):
        checkpoints.read(blobs, "c/12", recipe=RECIPE)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 8}, "seed"),
        ({"pins": {"weights": "other"}}, "pins"),
        ({"hyperparameters": {"n_epochs": 2}, "base": "big"}, "base, hyperparameters"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(blobs: LocalBlobs, folder: Path, change: dict[str, Any], told: str) -> None:
    assert folder.is_dir()
    with pytest.raises(CheckpointRefused, match=f"differs in {told}"):
        checkpoints.read(blobs, "c/12", recipe=RECIPE | change)


def test_a_full_disk_is_an_os_error_and_leaves_no_manifest(
    blobs: LocalBlobs, adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESMITH_FAILPOINTS", "checkpoint.manifest=raise")
    with pytest.raises(OSError, match="No space left"):
        checkpoints.write(blobs, "c/14", adapter=adapter, optimizer={}, cursor=CURSOR, recipe=RECIPE)
    assert not (blobs.path("c/14") / "MANIFEST.json").exists()
