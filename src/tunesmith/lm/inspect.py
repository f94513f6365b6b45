"""Says whether a folder holds a base model that this product can train and serve; run as a process of its own.

`python -m tunesmith.lm.inspect FOLDER` prints one line of JSON: the facts of the folder, or `{"refused": "the reason"}` and
exit code 1. The server never loads torch, so it asks here. A new reason to refuse a base is one more check below.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesmith.core.machine import gpus, memory_bytes, readable_bytes
from tunesmith.data.folder import CONFIG, TOKENIZER, BrokenFolder, chat_template, fingerprint, pins, read_folder

#: Room that working needs beside the weights.
MEMORY_FACTOR = 1.25


class Refused(ValueError):
    """The folder is no base for this product; the message is the reason."""


def check_config(config: dict[str, Any]) -> None:
    """Check what the configuration alone can tell: no foreign code, an architecture transformers knows.

    Raises:
        Refused: with the reason.
    """
    if config.get("auto_map"):
        raise Refused(
            f"{CONFIG} asks for code of the model's author (auto_map), and code from a model folder is never run "
            "(trust_remote_code is off). Use a model whose architecture transformers has itself."
        )
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES  # noqa: PLC0415 - slow to import

    if config.get("quantization_config"):
        raise Refused(
            f"Its weights are quantised (quantization_config in {CONFIG}), and adapters are trained and exported on whole "
            "ones. Use the checkpoint in bf16, fp16 or fp32."
        )
    architecture = str((config.get("architectures") or [""])[0])
    if "Classification" in architecture or "QuestionAnswering" in architecture:
        raise Refused(f"{architecture} has a head that labels texts in place of one that writes them.")
    model_type = str(config.get("model_type", ""))
    if model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise Refused(
            f"The architecture {model_type or 'without a name'} is not one that transformers loads as AutoModelForCausalLM."
        )


def check_memory(n_bytes: int) -> None:
    """Check that weights of `n_bytes` have room in the machine's memory or in that of its largest GPU.

    Raises:
        Refused: with both sizes.
    """
    room = max([memory_bytes(), *(gpu.memory_bytes for gpu in gpus())])
    if n_bytes * MEMORY_FACTOR > room:
        raise Refused(
            f"Its weights take {readable_bytes(n_bytes)} and working with them about "
            f"{readable_bytes(n_bytes * MEMORY_FACTOR)}, but this machine has {readable_bytes(room)} of memory. "
            "Use a smaller model or a larger machine."
        )


def inspect(path: Path) -> dict[str, Any]:
    """Check a folder and return its facts: `architecture`, `context_length`, `n_parameters`, `weights_bytes`, `pins`, …

    Raises:
        Refused: with the reason.
        BrokenFolder: a file is absent or malformed.
    """
    folder = read_folder(path)
    check_config(folder.config)
    check_memory(folder.weights_bytes)
    if not chat_template(path):
        raise Refused(
            f"{path} has no chat template, so messages cannot be turned into tokens. An instruction-tuned variant of the "
            "model has one; or put yours into chat_template.jinja."
        )
    _check_engine(path, highest=_check_template(path))
    return {
        "architecture": folder.architecture,
        "model_type": folder.model_type,
        "context_length": folder.context_length,
        "n_parameters": folder.n_parameters,
        "weights_bytes": folder.weights_bytes,
        "pins": pins(path),
        "fingerprint": fingerprint(path),
    }


def _check_template(path: Path) -> int:
    """Check the chat template and return the highest number of a token that it gives a message."""
    from tunesmith.data.render import Renderer  # noqa: PLC0415 - loads tokenizers

    try:
        prompt = Renderer.load(path).prompt([{"role": "user", "content": "Hello"}])
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"The chat template of {path} cannot render one user message: {error}") from error
    if not prompt:
        raise Refused(f"The chat template of {path} renders a user message to nothing.")
    return max(prompt)


def _check_vocabulary(path: Path, n_rows: int, highest: int) -> None:
    """Check that the model has a row for every token, but for what was added to the tokenizer and no prompt has.

    Raises:
        Refused: with both numbers.
    """
    from tokenizers import Tokenizer  # noqa: PLC0415 - as above

    own = Tokenizer.from_file(str(path / TOKENIZER)).get_vocab(with_added_tokens=False)
    highest = max(highest, *own.values())
    if highest >= n_rows:
        raise Refused(
            f"Its tokenizer has tokens up to number {highest:,}, and the model has {n_rows:,} of them. Which is whose?"
        )


def _check_engine(path: Path, highest: int) -> None:
    from transformers import AutoConfig  # noqa: PLC0415 - slow to import

    from tunesmith.lm.load import BaseRefused, load, prove, refusals  # noqa: PLC0415 - loads torch

    reasons = refusals(AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True))
    if reasons:
        raise Refused(f"The engine cannot train it exactly. {' '.join(reasons)}")
    try:
        base = load(path)
        _check_vocabulary(path, int(base.head.weight_VC.shape[0]), highest)
        prove(base)
    except Refused:
        raise
    except (BaseRefused, ImportError, OSError, ValueError, RuntimeError) as error:
        raise Refused(f"It cannot be loaded and run as it should be: {error}") from error


def main(arguments: Sequence[str]) -> int:
    """Print the facts of the folder named by the only argument, or the reason for refusing it."""
    try:
        facts = inspect(Path(arguments[0]).resolve())
    except (Refused, BrokenFolder) as error:
        sys.stdout.write(json.dumps({"refused": str(error)}) + "\n")
        return 1
    sys.stdout.write(json.dumps(facts) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
