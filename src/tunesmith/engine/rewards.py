"""The figures of graded samples, as the metrics events of a reinforcement job have them (mean and count, by grader)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from tunesmith.engine.samples import Graded
from tunesmith.graders.base import Flag, Grade, Usage
from tunesmith.graders.grader import Grader
from tunesmith.graders.multi import Multi

#: Errors that are counted for every grader, and for those of a kind.
_ERRORS: Final[Mapping[str, tuple[Flag, ...]]] = {
    "": ("other_error", "sample_parse_error", "invalid_variable_error"),
    "python": ("python_grader_server_error", "python_grader_runtime_error"),
    "model": (
        "model_grader_server_error", "model_grader_refusal_error", "model_grader_parse_error",
        "model_grader_exceeded_max_tokens_error",
    ),
    "multi": ("formula_parse_error",),
}  # fmt: skip


class Figures:
    """What is told of a step's samples: those that are trained on (`train`), and those of an evaluation (`valid`)."""

    def __init__(self, grader: Grader) -> None:
        self._graders: list[tuple[str, Any]] = [(grader.name or grader.type, grader)]
        if isinstance(grader, Multi):
            self._graders += list(grader.graders.items())

    def of(self, split: str, samples: Sequence[Graded], values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the figures of samples, joined with those that `values` has of the other split already."""
        full = {} if split == "train" else self._valid(samples)
        flat: dict[str, Any] = {} if split == "valid" else self._train(samples)
        usage = self._each(lambda name, grader: self._usage(split, name, grader, samples))
        errors = self._each(lambda name, grader: self._errors(split, name, grader, samples))
        scores = self._each(lambda name, grader: {f"{split}_reward_mean": _mean(self._scores(name, grader, samples))})
        latency = self._each(
            lambda name, grader: {f"{split}_execution_latency_mean": _mean(self._seconds(name, grader, samples))}
        )
        nested: dict[str, Any] = {
            "model_graders_token_usage": self._token_usage(split, samples),
            "usage": {
                "graders": usage,
                "samples": _mean_and_count(f"{split}_reasoning_tokens", [s.answer.n_reasoning for s in samples]),
            },
            "errors": {"graders": errors},
            "scores": {f"{split}_reward_mean": _mean(_rewards(samples)), "graders": scores},
            "timing": {"graders": latency},
        }
        return _joined(values, {**flat, **full, **nested})

    def _train(self, samples: Sequence[Graded]) -> dict[str, Any]:
        return {
            "train_mean_reward": _mean(_rewards(samples)),
            "reasoning_tokens_mean": _mean([sample.answer.n_reasoning for sample in samples]),
            "completion_tokens_mean": _mean([len(sample.drawn.tokens) for sample in samples]),
            "mean_unresponsive_rewards": _mean([float(sample.answer.finish_reason == "length") for sample in samples]),
        }

    def _valid(self, samples: Sequence[Graded]) -> dict[str, Any]:
        reward = _mean(_rewards(samples))
        return {
            "full_valid_mean_reward": reward,
            "valid_reward_mean": reward,
            "full_valid_mean_parse_error": _mean([float("sample_parse_error" in s.grade.errors) for s in samples]),
            "valid_reasoning_tokens_mean": _mean([sample.answer.n_reasoning for sample in samples]),
            "valid_completion_tokens_mean": _mean([len(sample.drawn.tokens) for sample in samples]),
        }

    def _each(self, figures: Callable[[str, Any], dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"name": name, "type": grader.type, **figures(name, grader)} for name, grader in self._graders]

    def _grades(self, name: str, grader: Any, samples: Iterable[Graded]) -> list[Grade]:
        """Return the grades that a grader gave: the samples' own, or those that they were computed from."""
        if grader is self._graders[0][1]:
            return [sample.grade for sample in samples]
        return [sample.grade.parts[name] for sample in samples if name in sample.grade.parts]

    def _scores(self, name: str, grader: Any, samples: Iterable[Graded]) -> list[float]:
        return [grade.score for grade in self._grades(name, grader, samples) if grade.score is not None]

    def _seconds(self, name: str, grader: Any, samples: Iterable[Graded]) -> list[float]:
        return [grade.seconds for grade in self._grades(name, grader, samples)]

    def _errors(self, split: str, name: str, grader: Any, samples: Sequence[Graded]) -> dict[str, Any]:
        kind = "model" if hasattr(grader, "model") else str(grader.type)
        grades = self._grades(name, grader, samples)
        figures: dict[str, Any] = {}
        for flag in (*_ERRORS[""], *_ERRORS.get(kind, ())):
            n = sum(flag in grade.errors for grade in grades)
            figures |= {f"{split}_{flag}_mean": n / len(grades) if grades else 0.0, f"{split}_{flag}_count": n}
        return figures

    def _usage(self, split: str, name: str, grader: Any, samples: Iterable[Graded]) -> dict[str, Any]:
        used = [sum(grade.usage.values(), Usage()) for grade in self._grades(name, grader, samples) if grade.usage]
        if not used:
            return {}
        prompt, completion = [each.prompt_tokens for each in used], [each.completion_tokens for each in used]
        return _mean_and_count(f"{split}_prompt_tokens", prompt) | _mean_and_count(f"{split}_completion_tokens", completion)

    def _token_usage(self, split: str, samples: Iterable[Graded]) -> dict[str, Any]:
        total: dict[str, Usage] = {}
        for sample in samples:
            for model, used in sample.grade.usage.items():
                total[model] = total.get(model, Usage()) + used
        prefix = "train" if split == "train" else "eval"
        return {
            model: {
                f"{prefix}_prompt_tokens": used.prompt_tokens,
                f"{prefix}_completion_tokens": used.completion_tokens,
                f"{prefix}_cached_tokens": used.cached_tokens,
            }
            for model, used in total.items()
        }


def _rewards(samples: Iterable[Graded]) -> list[float]:
    return [sample.reward for sample in samples if sample.reward is not None]


def _mean(numbers: Sequence[float]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None


def _mean_and_count(name: str, numbers: Sequence[float]) -> dict[str, Any]:
    return {f"{name}_mean": _mean(numbers), f"{name}_count": sum(numbers)}


def _joined(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return both, objects joined key by key and lists of graders grader by grader."""
    both: dict[str, Any] = {**one}
    for key, value in other.items():
        before = both.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            both[key] = _joined(before, value)
        elif isinstance(value, list) and isinstance(before, list):
            both[key] = [_joined(mine, yours) for mine, yours in zip(before, value, strict=True)]
        else:
            both[key] = value
    return both
