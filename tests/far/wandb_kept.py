"""A run that Weights & Biases keeps in a file, read back: a log of LevelDB's form, of messages of the package."""

import json
import struct
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

_BLOCK = 32 * 1024
_HEAD = 7
_FULL, _LAST = 1, 4


def records(folder: Path, job: str) -> list[Any]:
    """Return the records of the one run of a job that is kept in a data folder."""
    (file,) = folder.glob(f"wandb/{job}/wandb/offline-run-*-{job}/run-{job}.wandb")
    return run_file(file)


def run_file(file: Path) -> list[Any]:
    """Return the records of a run's file."""
    text = file.read_bytes()
    found, part, at = [], b"", _HEAD
    while at + _HEAD <= len(text):
        if _BLOCK - at % _BLOCK < _HEAD:
            at += _BLOCK - at % _BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", text, at)
        part += text[at + _HEAD : at + _HEAD + length]
        at += _HEAD + length
        if kind in (_FULL, _LAST):
            found.append(wandb_internal_pb2.Record.FromString(part))
            part = b""
    return found


def plain(items: Any) -> dict[str, Any]:
    """Return the items of a record as the dictionary that they were made of."""
    whole: dict[str, Any] = {}
    for item in items:
        *way, last = [item.key] if item.key else item.nested_key
        place = whole
        for step in way:
            place = place.setdefault(step, {})
        place[last] = json.loads(item.value_json)
    return whole


def of_kind(found: list[Any], kind: str) -> list[Any]:
    """Return what the records of a kind hold, in order."""
    return [getattr(record, kind) for record in found if record.WhichOneof("record_type") == kind]
