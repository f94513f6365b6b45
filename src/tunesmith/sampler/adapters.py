# pyright: basic
"""Adapters resident beside the base: loaded on demand, checked by hash, dropped by least use."""

import hashlib
import math
from collections import OrderedDict
from collections.abc import Collection
from pathlib import Path
from typing import Final

from safetensors import SafetensorError

from tunesmith.lm.adapter_file import WEIGHTS, AdapterRefused, from_folder
from tunesmith.lm.lora import Adapter, LoraModel

N_MAX_ADAPTERS: Final = 32


class Adapters:
    """Which adapter lies in which slot of the model."""

    def __init__(self, lora: LoraModel, *, n_max: int = N_MAX_ADAPTERS) -> None:
        self._lora = lora
        self._n_max = n_max
        #: sha256 and slot by name, least recently used first.
        self._resident: OrderedDict[str, tuple[str, int]] = OrderedDict()
        self._next_slot = 0
        self._leaving: set[int] = set()

    def slot(self, name: str, folder: Path, sha256: str, *, in_use: Collection[int] = ()) -> int:
        """Return the slot of an adapter, loading it first when it is not resident or has changed.

        Raises:
            AdapterRefused: its files are absent, do not fit the base, or are not the ones the hash names.
        """
        known = self._resident.get(name)
        if known is not None and known[0] == sha256:
            self._resident.move_to_end(name)
            return known[1]
        try:
            found = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
        except OSError as error:
            raise AdapterRefused(f"{folder} holds no adapter that can be read: {error.strerror}") from error
        if found != sha256:
            raise AdapterRefused(f"{folder / WEIGHTS} is not the adapter that was stored for {name}: its sha256 differs")
        adapter = _loaded(folder, self._lora)
        self.forget(name)
        self._drop_least_used(in_use)
        slot, self._next_slot = self._next_slot, self._next_slot + 1
        self._lora.place(slot, adapter)
        self._resident[name] = (sha256, slot)
        return slot

    def forget(self, name: str) -> None:
        """Let no new row use an adapter; absent is fine. Its memory goes at the next `tidy` after its last row."""
        known = self._resident.pop(name, None)
        if known is not None:
            self._leaving.add(known[1])

    def tidy(self, in_use: Collection[int]) -> None:
        """Free the adapters that are forgotten and that no row uses any more."""
        for slot in [slot for slot in self._leaving if slot not in in_use]:
            self._lora.take_out(slot)
            self._leaving.discard(slot)

    def names(self) -> list[str]:
        """Return the resident adapters, least recently used first."""
        return list(self._resident)

    def _drop_least_used(self, in_use: Collection[int]) -> None:
        for name, (_, slot) in list(self._resident.items()):
            if len(self._resident) < self._n_max:
                break
            if slot not in in_use:
                self.forget(name)
        self.tidy(in_use)


def _loaded(folder: Path, lora: LoraModel) -> Adapter:
    """Load an adapter; whatever is wrong with its files is one kind of error."""
    try:
        adapter = from_folder(folder, lora)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, AdapterRefused):
            raise
        raise AdapterRefused(f"{folder} does not hold an adapter that can be read: {error}") from error
    # it shares products with others in a batch
    if not all(math.isfinite(end) for factor in adapter.parameters() for end in factor.detach().aminmax()):
        raise AdapterRefused(f"{folder} holds an adapter with numbers that are not finite")
    return adapter
