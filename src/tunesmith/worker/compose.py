"""The fuse box of the compute side: builds the adapters a worker needs from its task."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tunesmith.domain.ports import Blobs, Drawing

if TYPE_CHECKING:
    from tunesmith.lm.load import Base
    from tunesmith.lm.lora import LoraModel


def open_blobs(url: str) -> Blobs:
    """Open the blob store that a task names, such as `file:///data/blobs`.

    Raises:
        ValueError: no store of this kind is known.
    """
    parts = urlsplit(url)
    match parts.scheme:
        case "file":
            from tunesmith.blobs.local import LocalBlobs  # noqa: PLC0415 - only the store that is asked for

            return LocalBlobs(Path(url2pathname(parts.path)))
        case other:
            raise ValueError(f"no blob store for the scheme {other!r} in {url!r}; known: file")


def open_sampler(
    base: "Base",
    lora: "LoraModel",
    *,
    slot: int,
    start_slot: int | None,
    context_length: int,
    stop_ids: frozenset[int],
    folder: Path,
) -> Drawing:
    """Open the sampler in a training: on the adapter in `slot`, and on what it began with (`start_slot`; None: the base)."""
    from tunesmith.sampler.direct import DirectSampler  # noqa: PLC0415 - torch, and only for rollouts

    return DirectSampler(
        base,
        lora,
        slot=slot,
        start_slot=start_slot,
        context_length=context_length,
        stop_ids=stop_ids,
        folder=folder,
    )


def preload() -> None:
    """Import the store that every task of a local server names."""
    importlib.import_module("tunesmith.blobs.local")
