"""How long a training takes and what it holds in memory: from runs that ended here, without any from sizes; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final, Literal

#: Operations for each parameter and token: forward, and backward to the activations.
_FORWARD_BACKWARD: Final = 4
#: dpo looks at its answers with the starting weights too.
_WITH_REFERENCE: Final = 5
#: Of an answer, which is sampled token by token: that is bound by memory and takes as long as so many operations.
_SAMPLED: Final = 32
#: Operations a second of one core, and of one GPU, in this engine; what machines differ by is the span.
_PER_CORE: Final = 3e10
_PER_GPU: Final = 2e13
_SPAN: Final = 4.0
#: From a worker's start to its first step, and from the last step to the end of its job.
_START_AND_END_S: Final = 10.0
#: What runs of the same base differ by on the same machine.
_MARGIN: Final = 0.25
#: Of an answer whose length nobody knows, the share of the longest that is reckoned with.
_ANSWER: Final = 0.25

#: A trainer before it has loaded a base.
_PROCESS_BYTES: Final = 400_000_000
#: Tokens of a micro-batch on a CPU, and where documents begin alike; as `engine/memory.py` has them.
CPU_TOKENS: Final = 2048
CPU_TREE_TOKENS: Final = 4096
#: Values kept for the backward pass per layer and token, in hidden sizes and in MLP sizes; as `engine/memory.py` has them.
N_HIDDEN: Final = 16
N_MLP: Final = 5
_RANK: Final = 16
#: Adapter, gradient and the optimizer's two moments, in fp32.
_ADAPTER_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Pace:
    """What is known of a run that ended well, in one attempt."""

    n_steps: int
    #: What its time goes with: trained tokens, or samples of reinforcement.
    units: float
    trained_tokens: int
    started_at: float
    first_step_at: float
    last_step_at: float
    finished_at: float


@dataclass(frozen=True, slots=True)
class Work:
    """What a training has to do."""

    method: str
    #: As in `Pace`.
    units: float
    #: Tokens of a sample of reinforcement, prompt and the longest answer; None for the other methods.
    sample_tokens: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds from a worker's start to the end of its job, not counting what the job waits for."""

    seconds: float
    low: float
    high: float
    #: From runs of this base and method that ended here, or by a rule of parameters and cores.
    source: Literal["jobs", "rule"]
    n_jobs: int = 0
    #: Tokens that it trains on; None where nobody knows.
    trained_tokens: int | None = None


def by_jobs(paces: Sequence[Pace], work: Work) -> Estimate | None:
    """Reckon from runs that ended; None when there is none to go by."""
    measured = [pace for pace in paces if pace.n_steps > 1 and pace.units > 0 and pace.last_step_at > pace.first_step_at]
    if not measured or not work.units:
        return None
    rates, rests = zip(*map(_rate, measured), strict=True)
    rest = median(rests)
    per_unit = median(pace.trained_tokens / pace.units for pace in measured)
    return Estimate(
        seconds=rest + work.units * median(rates),
        low=(min(rests) + work.units * min(rates)) * (1 - _MARGIN),
        high=(max(rests) + work.units * max(rates)) * (1 + _MARGIN),
        source="jobs",
        n_jobs=len(measured),
        trained_tokens=round(work.units * per_unit) if work.sample_tokens is not None else round(work.units),
    )


def _rate(pace: Pace) -> tuple[float, float]:
    """Return the seconds of a unit, and those that the run took beside its steps."""
    step_s = (pace.last_step_at - pace.first_step_at) / (pace.n_steps - 1)
    steps_s = step_s * pace.n_steps
    return steps_s / pace.units, max(0.0, pace.finished_at - pace.started_at - steps_s)


def by_rule(work: Work, *, n_parameters: int, n_cores: int, n_gpus: int) -> Estimate:
    """Reckon from sizes: operations for each token, and operations a second of a core or a GPU."""
    speed = n_gpus * _PER_GPU or n_cores * _PER_CORE
    if work.sample_tokens is None:
        operations = _WITH_REFERENCE if work.method == "dpo" else _FORWARD_BACKWARD
        seconds = work.units * operations * n_parameters / speed
    else:
        prompt, answer = work.sample_tokens
        tokens = (prompt + answer * _ANSWER) * _FORWARD_BACKWARD + answer * _ANSWER * _SAMPLED
        seconds = work.units * tokens * n_parameters / speed
    known = None if work.sample_tokens is not None else round(work.units)
    start = _START_AND_END_S
    return Estimate(seconds + start, seconds / _SPAN + start / 2, seconds * _SPAN + start * 2, "rule", trained_tokens=known)


def memory_bytes(config: Mapping[str, Any], *, n_parameters: int, n_longest: int, itemsize: int, method: str) -> int:
    """Return what a training on a CPU holds at its peak: process, weights, adapter, and what is kept to go back through."""
    text: Mapping[str, Any] = config.get("text_config") or config
    hidden, layers = int(text.get("hidden_size") or 0), int(text.get("num_hidden_layers") or 0)
    inner = int(text.get("intermediate_size") or 4 * hidden)
    adapter = layers * _RANK * (8 * hidden + 3 * (hidden + inner)) * _ADAPTER_BYTES
    n_tokens = max(CPU_TOKENS if method == "supervised" else CPU_TREE_TOKENS, n_longest)
    kept = n_tokens * layers * (N_HIDDEN * hidden + N_MLP * inner) * itemsize
    return _PROCESS_BYTES + n_parameters * itemsize + adapter + kept
