# pyright: basic
"""Writes a model as others load it: an adapter, whole weights, or one GGUF file; run as a process of its own.

`python -m tunesmith.lm.export` reads what is wanted as one JSON object from stdin and answers with one line of JSON,
`{"bytes": …}` or `{"refused": …}`, and so many bytes: a tar, or the GGUF file itself. Nothing is written to a disk, and one
tensor is in memory at a time.
"""

import json
import os
import sys
import tarfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from tunesmith.data.folder import CONFIG, TEMPLATE, TOKENIZER, TOKENIZER_CONFIG, BrokenFolder
from tunesmith.supervisor.tree import die_with_parent

README: Final = "README.md"
#: What belongs to a model beside its weights.
_BESIDE: Final = (
    *(CONFIG, "generation_config.json", TOKENIZER, TOKENIZER_CONFIG, TEMPLATE, "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "merges.txt", "tokenizer.model", "preprocessor_config.json"),
)
_LICENCES: Final = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")
_BLOCK: Final = tarfile.BLOCKSIZE

Chunks = Iterable[bytes | memoryview]


@dataclass(frozen=True, slots=True)
class Member:
    """A file of the tar."""

    name: str
    n_bytes: int
    chunks: Chunks


def adapter(wanted: dict[str, Any]) -> list[Member]:
    """Return the files of an adapter in PEFT's form, with the name under which its base is found.

    Raises:
        ExportRefused: the adapter is gone or damaged.
    """
    from tunesmith.lm import adapter_file  # noqa: PLC0415 - loads torch
    from tunesmith.lm.merge import read_correction  # noqa: PLC0415 - loads torch

    folder = Path(wanted["adapter"])
    read_correction(folder, wanted["sha256"])
    config = json.loads((folder / adapter_file.CONFIG).read_text(encoding="utf-8"))
    config.update(base_model_name_or_path=wanted["base_reference"], revision=wanted["revision"])
    told = json.dumps(config, indent=2).encode()
    weights = (folder / adapter_file.WEIGHTS).read_bytes()
    return [_text(adapter_file.CONFIG, told), _text(adapter_file.WEIGHTS, weights), _text(README, wanted["readme"].encode())]


def merged(wanted: dict[str, Any]) -> list[Member]:
    """Return the files of a whole model: the base's, with the adapter merged into its weights.

    Raises:
        ExportRefused: the adapter cannot be merged into these files.
    """
    from tunesmith.data.folder import INDEX  # noqa: PLC0415 - read where it is needed alone

    weights = _weights(wanted)
    folder = Path(wanted["base"])
    names = [name for name in (*_BESIDE, INDEX) if (folder / name).is_file()]
    names += sorted({path.name for pattern in _LICENCES for path in folder.glob(pattern) if path.is_file()})
    members = [_text(name, (folder / name).read_bytes()) for name in names]
    members.append(_text(README, wanted["readme"].encode()))
    return members + [Member(file.name, file.n_bytes, weights.whole(file)) for file in weights.files]


def tar_bytes(members: Sequence[Member]) -> int:
    """Return how long the tar of these files is."""
    return sum(_BLOCK + _padded(member.n_bytes) for member in members) + 2 * _BLOCK


def tarred(members: Iterable[Member]) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a tar."""
    now = int(time.time())
    for member in members:
        info = tarfile.TarInfo(member.name)
        info.size, info.mtime = member.n_bytes, now
        yield info.tobuf(tarfile.GNU_FORMAT)
        yield from member.chunks
        yield bytes(_padded(member.n_bytes) - member.n_bytes)
    yield bytes(2 * _BLOCK)


def _weights(wanted: dict[str, Any]) -> Any:
    from tunesmith.lm.merge import Weights, read_correction  # noqa: PLC0415 - loads torch

    tuned = wanted["adapter"] is not None
    return Weights(Path(wanted["base"]), read_correction(Path(wanted["adapter"]), wanted["sha256"]) if tuned else None)


def _text(name: str, content: bytes) -> Member:
    return Member(name, len(content), [content])


def _padded(n_bytes: int) -> int:
    return -(-n_bytes // _BLOCK) * _BLOCK


def _answer(wanted: dict[str, Any]) -> tuple[int, Chunks]:
    if wanted["format"] == "gguf":
        from tunesmith.lm.gguf_file import planned  # noqa: PLC0415 - loads torch and gguf

        plan = planned(Path(wanted["base"]), _weights(wanted), name=wanted["name"], wanted=wanted["type"])
        return plan.n_bytes, plan.chunks()
    members = (adapter if wanted["format"] == "adapter" else merged)(wanted)
    return tar_bytes(members), tarred(members)


def run(source: BinaryIO, out: BinaryIO) -> int:
    """Read what is wanted, answer, and return the exit code."""
    wanted = json.loads(source.read())
    die_with_parent(wanted["parent"])
    from tunesmith.lm.merge import ExportRefused  # noqa: PLC0415 - loads torch

    try:
        n_bytes, chunks = _answer(wanted)
    except (ExportRefused, BrokenFolder) as error:
        out.write(json.dumps({"refused": str(error)}).encode() + b"\n")
        return 1
    out.write(json.dumps({"bytes": n_bytes}).encode() + b"\n")
    for chunk in chunks:
        out.write(chunk)
    out.flush()
    return 0


def main() -> int:
    """Answer on stdout; whatever else would be printed goes where errors go."""
    out = os.fdopen(os.dup(1), "wb", buffering=1024 * 1024)
    os.dup2(2, 1)
    try:
        with out:
            return run(sys.stdin.buffer, out)
    except BrokenPipeError:
        return 2  # nobody wants the rest


if __name__ == "__main__":
    sys.exit(main())
