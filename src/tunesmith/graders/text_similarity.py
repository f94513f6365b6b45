"""`text_similarity`: how near two rendered texts are."""

from typing import Literal

from tunesmith.graders.base import GraderSchema, Template


class TextSimilarity(GraderSchema):
    """Measure two rendered texts against each other by one of the published metrics."""

    type: Literal["text_similarity"]
    name: str | None = None
    input: Template
    reference: Template
    evaluation_metric: Literal[
        "cosine", "fuzzy_match", "bleu", "gleu", "meteor", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l"
    ]
    #: Belongs to evals; tolerated, because the guides write it.
    pass_threshold: float | None = None
