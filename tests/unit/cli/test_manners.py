import json
import re
from pathlib import Path
from typing import Any

import pytest

from tunesmith.cli.demo.manners import (
    GRADER,
    N_HELD_OUT,
    N_TRAINING,
    N_VALIDATION,
    OPENINGS,
    Question,
    make_questions,
    polite,
    right,
)
from tunesmith.cli.demo.rows import write_rows
from tunesmith.data.pairs import PairForm
from tunesmith.data.rows import read_rows

EXAMPLES = Path(__file__).parents[3] / "examples" / "preferences"


def test_the_three_sets_ask_about_different_things() -> None:
    questions = make_questions()
    sets = [questions.training, questions.validation, questions.held_out]
    assert [len(rows) for rows in sets] == [N_TRAINING, N_VALIDATION, N_HELD_OUT]
    assert N_HELD_OUT >= 100
    texts = [each.text for rows in sets for each in rows]
    assert len(set(texts)) == len(texts)
    capitals = [each.value for rows in sets for each in rows if "capital" in each.text]
    assert len(set(capitals)) == len(capitals) > 20
    sums = [frozenset(re.findall(r"\d+", text)) for text in texts if re.search(r" [+-] ", text)]
    assert len(set(sums)) == len(sums) > 80


def test_the_same_seed_makes_the_same_questions_and_another_seed_others() -> None:
    assert make_questions(1) == make_questions(1)
    assert make_questions(1) != make_questions(2)


def test_both_answers_are_right_and_only_the_preferred_one_is_polite() -> None:
    for question in make_questions().training:
        assert right(question.polite, question), question
        assert right(question.curt, question), question
        assert polite(question.polite), question
        assert not polite(question.curt), question
        assert question.polite != question.curt


def test_the_example_files_are_dpo_files() -> None:
    with (EXAMPLES / "training.jsonl").open("rb") as stream:
        pairs = list(read_rows(stream, form=PairForm(), max_line_bytes=10_000))
    assert [pair.preferred["content"] for pair in pairs] == [each.polite for each in make_questions().training]


SUM = Question("How much is 1 + 10?", "11", "", "")
FACT = Question("What is the capital of Peru?", "Lima", "", "")


@pytest.mark.parametrize(
    ("question", "answer", "is_polite", "is_right"),
    [
        (SUM, "Sure! 1 + 10 is 11.", True, True),
        (SUM, "Sure! 1 + 10 is 12.", True, False),
        (SUM, "1 + 10 = 111", False, False),
        (SUM, "", False, False),
        (FACT, "Certainly. The capital of Peru is Lima. Have a nice day!", True, True),
        (FACT, "Certainly. the capital of Peru is Lima.", False, True),
        (FACT, "Certainly.", False, False),
        (FACT, "limas", False, False),
        (FACT, "lima", False, True),
        (FACT, f"{OPENINGS[0]} The capital of Peru is", False, False),
    ],
)
def test_the_rules_and_the_grader_say_the_same(question: Question, answer: str, *, is_polite: bool, is_right: bool) -> None:
    assert (polite(answer), right(answer, question)) == (is_polite, is_right)
    assert _graded("polite", answer, question) == is_polite
    assert _graded("right", answer, question) == is_right


def _graded(name: str, answer: str, question: Question) -> float:
    names: dict[str, Any] = {}
    exec(GRADER["graders"][name]["source"], names)
    return names["grade"]({"output_text": answer}, {"answer": question.value})


def test_the_example_files_are_what_the_generator_makes(tmp_path: Path) -> None:
    questions = make_questions()
    made = {
        "training": [each.row() for each in questions.training],
        "validation": [each.row() for each in questions.validation],
        "held_out": [each.check() for each in questions.held_out],
    }
    for name, rows in made.items():
        write_rows(tmp_path / f"{name}.jsonl", rows)
        assert (EXAMPLES / f"{name}.jsonl").read_text() == (tmp_path / f"{name}.jsonl").read_text()
    assert json.loads((EXAMPLES / "grader.json").read_text()) == GRADER
