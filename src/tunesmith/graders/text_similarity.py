"""`text_similarity`: how near two rendered texts are."""

import asyncio
from collections.abc import Mapping
from typing import Final, Literal

from tunesmith.graders.base import Grade, GraderBase, GradingFailed, Sample, Tools
from tunesmith.graders.template import Template, render

#: Longest text that is measured: what the metrics take grows with the product of both lengths.
N_MAX_CHARACTERS: Final = 64 * 1024
#: METEOR compares every word with every word, in Python.
N_MAX_METEOR: Final = 16 * 1024

Metric = Literal[
    "cosine", "fuzzy_match", "bleu", "gleu", "meteor", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l"
]


class TextSimilarity(GraderBase):
    """Measure two rendered texts against each other, 0 to 1; `metrics.py` tells how."""

    type: Literal["text_similarity"]
    input: Template
    reference: Template
    evaluation_metric: Metric
    #: Belongs to evals; tolerated, because the guides write it.
    pass_threshold: float | None = None

    def templates(self) -> Mapping[str, str]:
        """Return both texts."""
        return {"input": self.input, "reference": self.reference}

    async def check(self, tools: Tools, /) -> None:
        """See to it that `cosine` has its embedding model."""
        if self.evaluation_metric == "cosine":
            await tools.embedder.check()

    async def score(self, sample: Sample, tools: Tools, /) -> Grade:
        """Return how near the texts are; long ones are refused."""
        text, reference = render(self.input, sample), render(self.reference, sample)
        longest, limit = (
            max(len(text), len(reference)),
            N_MAX_METEOR if self.evaluation_metric == "meteor" else N_MAX_CHARACTERS,
        )
        if longest > limit:
            raise GradingFailed("other_error", f"{self.evaluation_metric} measures up to {limit} characters, not {longest}")
        if self.evaluation_metric == "cosine":
            return Grade(max(0.0, await tools.embedder.similarity(text, reference)))  # as all metrics are
        return Grade(await asyncio.to_thread(_measure, self.evaluation_metric, text, reference))


def _measure(metric: str, text: str, reference: str) -> float:
    from tunesmith.graders import metrics  # noqa: PLC0415 - half a second of nltk and numpy, only where it is used

    return metrics.measure(metric, text, reference)
