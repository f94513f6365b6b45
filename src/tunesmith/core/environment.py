"""What a child process gets of our environment: an allow-list, so that no secret of the server's reaches a worker."""

import os
from typing import Final

#: Every process of an attempt carries these two; whoever confirms its end finds by them what is left of it.
JOB_TAG: Final = "TUNESMITH_JOB"
ATTEMPT_TAG: Final = "TUNESMITH_ATTEMPT"

_NAMES: Final = frozenset(
    {
        "PATH",
        "HOME",
        "USER",
        "LANG",
        "TZ",
        "TMPDIR",
        "PYTHONPATH",
        "LD_LIBRARY_PATH",
        "OMP_NUM_THREADS",
        "OMP_WAIT_POLICY",
        "MKL_NUM_THREADS",
        "HF_HOME",
        "HF_HUB_OFFLINE",
        "TOKENIZERS_PARALLELISM",
        "TUNESMITH_FAILPOINTS",
    }
)
#: Threads that spin while they wait for one another starve every other process of a machine that is not theirs alone.
_DEFAULTS: Final = {"OMP_WAIT_POLICY": "PASSIVE"}
_PREFIXES: Final = ("LC_", "CUDA_", "NVIDIA_", "NCCL_", "PYTORCH_")


def passed_on() -> dict[str, str]:
    """Return the part of the environment that a child process is given."""
    passed = {name: value for name, value in os.environ.items() if name in _NAMES or name.startswith(_PREFIXES)}
    return {**_DEFAULTS, **passed}


def tag() -> dict[str, str]:
    """Return the attempt's tag that this process carries, for a child that gets nothing else; empty outside an attempt."""
    return {name: os.environ[name] for name in (JOB_TAG, ATTEMPT_TAG) if name in os.environ}
