import json
import re
from pathlib import Path

from pydantic import TypeAdapter

from tunesmith.cli.demo.rows import write_rows
from tunesmith.cli.demo.sums import GRADER, N_HELD_OUT, N_TRAINING, N_VALIDATION, make_sums
from tunesmith.data.prompts import PromptForm
from tunesmith.data.rows import read_rows
from tunesmith.graders.grader import Grader
from tunesmith.graders.multi import Multi

EXAMPLES = Path(__file__).parents[3] / "examples" / "reinforcement"


def test_the_three_sets_share_no_pair_of_numbers() -> None:
    sums = make_sums()
    sets = [sums.training, sums.validation, sums.held_out]
    assert [len(rows) for rows in sets] == [N_TRAINING, N_VALIDATION, N_HELD_OUT]
    assert N_HELD_OUT >= 100
    pairs = [tuple(re.findall(r"\d+", each.text)) for rows in sets for each in rows]
    assert len(set(pairs)) == len(pairs)


def test_the_same_seed_makes_the_same_sums_and_another_seed_others() -> None:
    assert make_sums(1) == make_sums(1)
    assert make_sums(1) != make_sums(2)


def test_answers_are_right() -> None:
    for each in make_sums().training:
        one, other = map(int, re.findall(r"\d+", each.text))
        less = any(word in each.text for word in (" - ", "minus", "loses", "gives away"))
        assert int(each.answer) == (one - other if less else one + other), each.text


def test_the_example_files_are_reinforcement_files_and_have_what_the_grader_asks_for() -> None:
    assert isinstance(TypeAdapter(Grader).validate_python(GRADER), Multi)
    with (EXAMPLES / "training.jsonl").open("rb") as stream:
        prompts = list(read_rows(stream, form=PromptForm(), max_line_bytes=10_000))
    assert [prompt.item for prompt in prompts] == [{"answer": each.answer} for each in make_sums().training]


def test_the_example_files_are_what_the_generator_makes(tmp_path: Path) -> None:
    sums = make_sums()
    for name, rows in (("training", sums.training), ("validation", sums.validation), ("held_out", sums.held_out)):
        write_rows(tmp_path / f"{name}.jsonl", (each.row() for each in rows))
        assert (EXAMPLES / f"{name}.jsonl").read_text() == (tmp_path / f"{name}.jsonl").read_text()
    assert json.loads((EXAMPLES / "grader.json").read_text()) == GRADER
