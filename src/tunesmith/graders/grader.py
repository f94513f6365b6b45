"""Any grader: a leaf, or `multi` over leaves."""

from typing import Annotated

from pydantic import Field

from tunesmith.graders.label_model import LabelModel
from tunesmith.graders.multi import Multi
from tunesmith.graders.python import PythonGrader
from tunesmith.graders.score_model import ScoreModel
from tunesmith.graders.string_check import StringCheck
from tunesmith.graders.text_similarity import TextSimilarity

Grader = Annotated[
    StringCheck | TextSimilarity | PythonGrader | ScoreModel | LabelModel | Multi, Field(discriminator="type")
]
