"""The fuse box of the compute side: builds the adapters a worker needs from its task."""

import importlib
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tunesmith.domain.ports import Blobs


def open_blobs(url: str) -> Blobs:
    """Open the blob store that a task names, such as `file:///data/blobs`.

    Raises:
        ValueError: no store of this kind is known.
    """
    parts = urlsplit(url)
    match parts.scheme:
        case "file":
            from pathlib import Path  # noqa: PLC0415 - an adapter's needs load with the adapter

            from tunesmith.blobs.local import LocalBlobs  # noqa: PLC0415 - only the store that is asked for

            return LocalBlobs(Path(url2pathname(parts.path)))
        case other:
            raise ValueError(f"no blob store for the scheme {other!r} in {url!r}; known: file")


def preload() -> None:
    """Import the store that every task of a local server names."""
    importlib.import_module("tunesmith.blobs.local")
