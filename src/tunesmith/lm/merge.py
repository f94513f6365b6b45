# pyright: basic
"""A base's weights read from its files one tensor at a time, with an adapter merged in where there is one.

Shapes: I inputs, O outputs of a layer, R rank.
"""

import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load
from torch import Tensor

from tunesmith.data.folder import weight_files
from tunesmith.lm.adapter_file import CONFIG, WEIGHTS

#: The types that a layer's weights may have, by their name in a safetensors file.
DTYPES: Final = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_N_AT_ONCE: Final = 16 * 1024 * 1024
_PREFIX: Final = "base_model.model."


class ExportRefused(ValueError):
    """The model cannot be written in the form that was asked for; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Correction:
    """An adapter without its model: the two factors of each layer, and what their product is multiplied by."""

    factors: dict[str, tuple[Tensor, Tensor]]
    scale: float


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a tensor lies in its file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class WeightFile:
    """An open safetensors file: what comes before its tensors, and they, in the order in which they lie there."""

    name: str
    content: mmap
    start: int
    entries: list[Entry]

    @property
    def n_bytes(self) -> int:
        """How long the file is."""
        return len(self.content)


def read_correction(folder: Path, sha256: str) -> Correction:
    """Read an adapter.

    Raises:
        ExportRefused: its files are gone, or are not those that were trained.
    """
    try:
        content = (folder / WEIGHTS).read_bytes()
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ExportRefused(f"the adapter is gone: {Path(error.filename).name} is absent") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ExportRefused(f"the adapter is damaged: the sha256 of {WEIGHTS} is not the one that training told")
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    stored = load(content)
    for name in stored:
        path = name.removeprefix(_PREFIX).removesuffix(".lora_A.weight")
        if name.endswith(".lora_A.weight"):
            factors[path] = (stored[name].float(), stored[f"{_PREFIX}{path}.lora_B.weight"].float())
    return Correction(factors, config["lora_alpha"] / config["r"])


class Weights:
    """The tensors of a base's folder. All files are open from the beginning, so that none is missed if they are removed."""

    def __init__(self, folder: Path, correction: Correction | None) -> None:
        """Open the files.

        Raises:
            ExportRefused: the adapter has layers that the files do not have by those names, or not as plain numbers.
        """
        self.files = [_opened(path) for path in weight_files(folder)]
        self.entries = {entry.name: (file, entry) for file in self.files for entry in file.entries}
        self._correction = correction
        for path in correction.factors if correction is not None else ():
            found = self.entries.get(f"{path}.weight")
            if found is None:
                raise ExportRefused(
                    f"the base's files keep the layer {path} under another name, so the adapter cannot be merged into them"
                )
            if found[1].dtype not in DTYPES:
                raise ExportRefused(
                    f"the base's layer {path} is stored as {found[1].dtype}, and an adapter is merged into {_listed(DTYPES)}"
                )

    def tensor(self, name: str) -> Tensor:
        """Return a tensor with the adapter merged in: in fp32 where there is one for it, else as it is stored.

        Raises:
            ExportRefused: it is stored in a type that is no plain number.
        """
        file, entry = self.entries[name]
        if entry.dtype not in DTYPES:
            raise ExportRefused(f"{name} is stored as {entry.dtype}, and {_listed(DTYPES)} are what can be written")
        stored = torch.frombuffer(
            bytearray(file.content[file.start + entry.begin : file.start + entry.end]), dtype=DTYPES[entry.dtype]
        )
        weight_OI = stored.view(entry.shape)
        factors = self._factors(name)
        if factors is None:
            return weight_OI
        a_RI, b_OR = factors
        assert self._correction is not None
        return torch.addmm(weight_OI.float(), b_OR, a_RI, alpha=self._correction.scale)

    def whole(self, file: WeightFile) -> Iterator[bytes | memoryview]:
        """Yield a file's bytes with the adapter merged in: the sum in fp32, rounded once to the type of the base."""
        yield from _pieces(file, 0, file.start)
        for entry in file.entries:
            if self._factors(entry.name) is None:
                yield from _pieces(file, file.start + entry.begin, file.start + entry.end)
            else:
                yield raw(self.tensor(entry.name).to(DTYPES[entry.dtype]))

    def _factors(self, name: str) -> tuple[Tensor, Tensor] | None:
        if self._correction is None or not name.endswith(".weight"):
            return None
        return self._correction.factors.get(name.removesuffix(".weight"))


def raw(tensor: Tensor) -> memoryview:
    """Return a tensor's bytes."""
    return memoryview(tensor.contiguous().view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]  # arrays are buffers


def _opened(path: Path) -> WeightFile:
    with path.open("rb") as stream:
        content = mmap(stream.fileno(), 0, access=ACCESS_READ)
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    entries = [
        Entry(name, told["dtype"], tuple(told["shape"]), *told["data_offsets"])
        for name, told in header.items()
        if name != "__metadata__"
    ]
    entries.sort(key=lambda entry: entry.begin)
    return WeightFile(path.name, content, 8 + length, entries)


def _pieces(file: WeightFile, begin: int, end: int) -> Iterator[bytes]:
    for at in range(begin, end, _N_AT_ONCE):
        yield file.content[at : min(at + _N_AT_ONCE, end)]


def _listed(names: Any) -> str:
    return ", ".join(names)
