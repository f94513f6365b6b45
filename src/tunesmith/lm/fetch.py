"""Downloads a base model from the Hugging Face hub into a folder and inspects it; run as a process of its own.

`python -m tunesmith.lm.fetch HUB_ID FOLDER` prints lines of JSON: `{"downloaded_bytes", "total_bytes"}` as it goes, then the
facts that `lm.inspect` prints, or `{"refused": "the reason"}` and exit code 1. Only safetensors, tokenizer, configuration
and template are fetched, and what the configuration forbids is refused before the weights are. The process ends when its
standard input is closed, so it cannot outlive the server that holds the other end.
"""

import json
import os
import shutil
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import httpx2
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tunesmith.core.machine import free_disk_bytes, readable_bytes
from tunesmith.data.folder import CONFIG, INDEX, TEMPLATE, TOKENIZER, TOKENIZER_CONFIG, BrokenFolder
from tunesmith.lm.inspect import Refused, check_config, check_memory, inspect

SMALL_FILES: Final = frozenset(
    {CONFIG, INDEX, TEMPLATE, TOKENIZER, TOKENIZER_CONFIG, "generation_config.json", "special_tokens_map.json"}
)
PROGRESS_S: Final = 0.5


def main(arguments: Sequence[str]) -> int:
    """Fetch the repository named by the first argument into the folder named by the second."""
    hub_id, folder = arguments[0], Path(arguments[1])
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        facts = fetch(hub_id, folder)
    except (Refused, BrokenFolder) as error:
        _say({"refused": str(error)})
        return 1
    _say(facts)
    return 0


def fetch(hub_id: str, folder: Path) -> dict[str, Any]:
    """Download and inspect; `hub_id` may end in `@revision`. Returns the facts of the folder.

    Raises:
        Refused: the repository cannot be used, or is not to be had; the message is the reason.
        BrokenFolder: what arrived is not a whole model.
    """
    repository, _, revision = hub_id.partition("@")
    try:
        info = HfApi().model_info(repository, revision=revision or None, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
        weights = wanted_weights(repository, list(sizes))
        small = sorted(SMALL_FILES & set(sizes))
        if CONFIG not in sizes or TOKENIZER not in sizes:
            raise Refused(f"{repository} has no {CONFIG if CONFIG not in sizes else TOKENIZER} on the hub, which is needed.")
        total = sum(sizes[name] for name in [*weights, *small])
        check_memory(sum(sizes[name] for name in weights))
        _check_disk(folder, total)
        snapshot_download(repository, revision=info.sha, local_dir=folder, allow_patterns=small)
        check_config(json.loads((folder / CONFIG).read_text()))
        with _Progress(folder, total):
            snapshot_download(repository, revision=info.sha, local_dir=folder, allow_patterns=weights)
    except GatedRepoError as error:
        raise Refused(
            f"{repository} is gated: accept its terms on the hub, then start the server with HF_TOKEN set to your token."
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise Refused(
            f"The hub knows no model {hub_id}, or it is private (then start the server with HF_TOKEN set to your token)."
        ) from error
    except httpx2.TransportError as error:
        raise Refused(
            f"{repository} could not be downloaded: the hub ({HfApi().endpoint}) cannot be reached: {_first_line(error)}. "
            "Where there is no network, fetch the model elsewhere and add its folder."
        ) from error
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise Refused(f"{repository} could not be downloaded: {_first_line(error)}") from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    return inspect(folder)


def wanted_weights(repository: str, names: list[str]) -> list[str]:
    """Return which files hold the weights, of all files of a repository: the top folder's safetensors, one format of them.

    Raises:
        Refused: there are none.
    """
    found = [name for name in names if name.endswith(".safetensors") and "/" not in name]
    preferred = [name for name in found if name.startswith("model")]
    if preferred or found:
        return sorted(preferred or found)
    pickled = [name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
    if pickled:
        raise Refused(
            f"{repository} has pickled weights only ({pickled[0]}). Loading them would run the code inside them, so only "
            "safetensors are taken."
        )
    raise Refused(f"{repository} has no *.safetensors file in its top folder.")


class _Progress:
    """Tells how many bytes lie in a folder while a download fills it."""

    def __init__(self, folder: Path, total: int) -> None:
        self._folder = folder
        self._total = total
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            done = min(self._total, _bytes_under(self._folder))
            _say({"downloaded_bytes": done, "total_bytes": self._total})
            if self._over.wait(PROGRESS_S):
                return


def _bytes_under(folder: Path) -> int:
    n_bytes = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                n_bytes += (Path(parent) / name).stat().st_blocks * 512
            except FileNotFoundError:  # renamed between the listing and the look
                continue
    return n_bytes


def _check_disk(folder: Path, n_bytes: int) -> None:
    free = free_disk_bytes(folder)
    if n_bytes > free:
        raise Refused(f"It takes {readable_bytes(n_bytes)} and the disk of {folder} has {readable_bytes(free)} free.")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _end_with_the_parent() -> None:
    while os.read(0, 1024):
        pass
    os._exit(3)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
