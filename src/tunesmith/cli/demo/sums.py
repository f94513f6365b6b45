"""Sums, plain and in small stories, whose answer is to be the number alone: the demonstration of reinforcement, from a seed.

The embedded base answers most of them right, in whatever form chance has it. Nothing in a prompt says that the bare number
is wanted: only the grader does. The three sets share no pair of numbers.
"""

import random
from dataclasses import dataclass
from typing import Any, Final

from tunesmith.cli.demo.rows import Sets, split

SEED: Final = 3
N_TRAINING: Final = 120
N_VALIDATION: Final = 30
N_HELD_OUT: Final = 120
HIGHEST: Final = 20

NAMES: Final = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Jack", "Kate", "Leo", "Maria")
ITEMS: Final = ("apples", "books", "coins", "stars", "cakes", "pens", "cards", "stamps", "keys", "cups")
PLAIN: Final = (
    "What is {one} {sign} {other}?",
    "Calculate {one} {sign} {other}.",
    "How much is {one} {sign} {other}?",
    "What is {one} {spoken} {other}?",
)
STORIES: Final = {
    "+": ("{name} has {one} {items} and finds {other} more.", "{name} has {one} {items} and buys {other} more."),
    "-": ("{name} has {one} {items} and loses {other}.", "{name} has {one} {items} and gives away {other}."),
}
SPOKEN: Final = {"+": "plus", "-": "minus"}

#: Nearly all for the number and nothing else; a little for being near it, so that the way there pays too.
GRADER: Final[dict[str, Any]] = {
    "type": "multi",
    "name": "the number alone",
    "graders": {
        "exact": {
            "type": "string_check",
            "name": "exact",
            "operation": "eq",
            "input": "{{ sample.output_text }}",
            "reference": "{{ item.answer }}",
        },
        "near": {
            "type": "text_similarity",
            "name": "near",
            "evaluation_metric": "fuzzy_match",
            "input": "{{ sample.output_text }}",
            "reference": "{{ item.answer }}",
        },
    },
    "calculate_output": "0.8 * exact + 0.2 * near",
}


@dataclass(frozen=True, slots=True)
class Sum:
    """A sum that is asked for."""

    text: str
    answer: str

    def prompt(self) -> list[dict[str, str]]:
        """Return the messages that ask it."""
        return [{"role": "user", "content": self.text}]

    def row(self) -> dict[str, Any]:
        """Return the row of a file of prompts; `answer` is the grader's."""
        return {"messages": self.prompt(), "answer": self.answer}


def make_sums(seed: int = SEED) -> Sets[Sum]:
    """Make the three sets; the same seed makes the same sets."""
    randomness = random.Random(seed)
    pairs = [(one, other) for one in range(HIGHEST + 1) for other in range(1, HIGHEST + 1)]
    drawn = randomness.sample(pairs, N_TRAINING + N_VALIDATION + N_HELD_OUT)
    return split([_sum(randomness, *pair) for pair in drawn], N_TRAINING, N_VALIDATION, N_HELD_OUT)


def _sum(randomness: random.Random, one: int, other: int) -> Sum:
    sign = "-" if other <= one and randomness.random() < 0.5 else "+"
    value = one + other if sign == "+" else one - other
    if randomness.random() < 0.5:
        wording = randomness.choice(PLAIN)
        return Sum(wording.format(one=one, other=other, sign=sign, spoken=SPOKEN[sign]), str(value))
    name, items = randomness.choice(NAMES), randomness.choice(ITEMS)
    story = randomness.choice(STORIES[sign]).format(name=name, one=one, other=other, items=items)
    return Sum(f"{story} How many {items} does {name} have?", str(value))
