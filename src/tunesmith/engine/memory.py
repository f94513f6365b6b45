# pyright: basic
"""How many tokens go through the model at once, from what the machine has free; nothing is recomputed while they fit."""

from typing import Any, Final

import torch

from tunesmith.lm.load import Base

#: Tokens of a micro-batch on a CPU: half as many take a tenth more time and a fifth less memory, twice as many no less time.
CPU_TOKENS: Final = 2048
#: The same where documents share what they begin with: that is computed once for each micro-batch.
CPU_TREE_TOKENS: Final = 4096
_MAX_TOKENS: Final = 65536
#: Share of the free memory of a GPU that activations may take.
_SHARE: Final = 0.6
#: Values kept for the backward pass per layer and token, in hidden sizes and in MLP sizes.
_N_HIDDEN: Final = 16
_N_MLP: Final = 5


def bytes_per_token(config: Any, dtype: torch.dtype) -> int:
    """Return an estimate of what the backward pass keeps for each token."""
    text = config.get_text_config()
    hidden = int(text.hidden_size)
    inner = int(getattr(text, "intermediate_size", 0) or 4 * hidden)
    return int(text.num_hidden_layers) * (_N_HIDDEN * hidden + _N_MLP * inner) * dtype.itemsize


def token_budget(base: Base) -> int:
    """Return the tokens of a micro-batch: fixed on a CPU, by free memory on a GPU."""
    if base.device.type != "cuda":
        return CPU_TOKENS
    free, _ = torch.cuda.mem_get_info(base.device)
    fitting = int(free * _SHARE) // bytes_per_token(base.model.config, base.dtype)
    return max(CPU_TOKENS, min(_MAX_TOKENS, fitting))


def tree_budget(base: Base, token_budget: int) -> int:
    """Return the tokens of a micro-batch of documents that begin alike."""
    return CPU_TREE_TOKENS if base.device.type == "cpu" else token_budget
