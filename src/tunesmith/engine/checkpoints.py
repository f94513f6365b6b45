# pyright: basic
"""Checkpoints in the blob store: adapter in PEFT format, optimizer, cursor, and a manifest that is written last.

A checkpoint exists when its `MANIFEST.json` does; it names every file with its hash, and the recipe of the run: what has to
be equal for another attempt to go on from here and end with the very same adapter.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from safetensors.torch import save
from torch import Tensor

from tunesmith.core.failpoint import failpoint
from tunesmith.domain.ports import Blobs
from tunesmith.lm import adapter_file
from tunesmith.lm.lora import Adapter

VERSION: Final = 1
MANIFEST: Final = "MANIFEST.json"
OPTIMIZER: Final = "optimizer.safetensors"
CURSOR: Final = "cursor.json"
#: What the run's source cannot compute again; absent where there is nothing of it.
SOURCE: Final = "source.safetensors"


class CheckpointRefused(ValueError):
    """A checkpoint is incomplete, damaged, or of another run; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a run stands after a step; with seed and recipe it determines everything that follows."""

    step: int
    #: Tokens of all examples gone through so far.
    trained_tokens: int
    #: The figures of this step, as they were reported.
    metrics: dict[str, Any]
    #: The step was not told of yet: the run paused before it was measured on the validation file.
    untold: bool = False


@dataclass(frozen=True, slots=True)
class Saved:
    """A complete checkpoint: its blob prefix, and the hash of its adapter."""

    step: int
    key: str
    sha256: str
    metrics: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checkpoint read back: the folder holds the adapter."""

    folder: Path
    adapter_sha256: str
    cursor: Cursor
    optimizer: dict[str, Tensor]
    source: dict[str, Tensor]


def write(
    blobs: Blobs,
    key: str,
    *,
    adapter: Adapter,
    optimizer: dict[str, Tensor],
    cursor: Cursor,
    recipe: dict[str, Any],
    source: dict[str, Tensor] | None = None,
) -> Saved:
    """Write a checkpoint under the blob prefix `key`.

    Raises:
        FileExistsError: there is one already.
        OSError: the store cannot take it (a full disk).
    """
    files = adapter_file.to_files(adapter, base_name=str(recipe.get("base", "")))
    files[OPTIMIZER] = save({name: tensor.cpu().contiguous() for name, tensor in optimizer.items()})
    if source:
        files[SOURCE] = save({name: tensor.cpu().contiguous() for name, tensor in source.items()})
    state = asdict(cursor)
    files[CURSOR] = json.dumps(state).encode()
    listed: dict[str, dict[str, Any]] = {}
    for name, content in files.items():
        failpoint("checkpoint.put")
        stored = blobs.put(f"{key}/{name}", [content], create_only=True)
        listed[name] = {"sha256": stored.sha256, "bytes": stored.bytes}
    manifest = {"version": VERSION, "step": cursor.step, "files": listed, "pins": recipe.get("pins", {}), "recipe": recipe}
    failpoint("checkpoint.manifest")
    blobs.put(f"{key}/{MANIFEST}", [json.dumps(manifest, indent=1).encode()], create_only=True)
    failpoint("checkpoint.complete")
    return Saved(cursor.step, key, listed[adapter_file.WEIGHTS]["sha256"], cursor.metrics)


def read(blobs: Blobs, key: str, *, recipe: dict[str, Any]) -> Loaded:
    """Read a checkpoint of a run with the same recipe.

    Raises:
        CheckpointRefused: with the reason.
    """
    folder = blobs.path(key)
    manifest = _manifest(folder, key)
    _check_files(folder, key, manifest)
    theirs = manifest["recipe"]
    differing = sorted(name for name in {*theirs, *recipe} if theirs.get(name) != recipe.get(name))
    if differing:
        raise CheckpointRefused(f"The checkpoint {key} is of another run: it differs in {', '.join(differing)}.")
    state = json.loads((folder / CURSOR).read_text())
    adapter_sha256 = str(manifest["files"][adapter_file.WEIGHTS]["sha256"])
    source = adapter_file.read_tensors(folder / SOURCE) if SOURCE in manifest["files"] else {}
    return Loaded(folder, adapter_sha256, Cursor(**state), adapter_file.read_tensors(folder / OPTIMIZER), source)


def _manifest(folder: Path, key: str) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except FileNotFoundError as error:
        raise CheckpointRefused(f"The checkpoint {key} is incomplete: it has no {MANIFEST}.") from error
    except ValueError as error:
        raise CheckpointRefused(f"The checkpoint {key} is damaged: {MANIFEST} is not JSON.") from error
    if manifest.get("version") != VERSION:
        raise CheckpointRefused(
            f"The checkpoint {key} has version {manifest.get('version')}, and this release reads {VERSION}."
        )  # fmt: skip
    return manifest


def _check_files(folder: Path, key: str, manifest: dict[str, Any]) -> None:
    for name, facts in manifest["files"].items():
        file = folder / name
        if not file.is_file():
            raise CheckpointRefused(f"The checkpoint {key} is incomplete: {name} is absent.")
        with file.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != facts["sha256"]:
                raise CheckpointRefused(f"The checkpoint {key} is damaged: {name} does not have its hash.")
