"""The graders that can stand inside `multi`: a new one is added to this union, and is known everywhere by that."""

from typing import Annotated

from pydantic import Field

from tunesmith.graders.label_model import LabelModel
from tunesmith.graders.python import PythonGrader
from tunesmith.graders.score_model import ScoreModel
from tunesmith.graders.string_check import StringCheck
from tunesmith.graders.text_similarity import TextSimilarity

Leaf = Annotated[StringCheck | TextSimilarity | PythonGrader | ScoreModel | LabelModel, Field(discriminator="type")]
