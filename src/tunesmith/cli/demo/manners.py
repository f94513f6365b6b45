"""Small questions with a polite answer and one without manners, both right: the demonstration of dpo, from a seed.

Facts, sums, even and odd, and labels, as the embedded base knows them. What is asked about in one set (a country, a sum, a
review) is in none of the others. Correctness and manners are told by two rules that know nothing of each other.
"""

import random
import re
from dataclasses import dataclass
from typing import Any, Final

from tunesmith.cli.demo.rows import Sets, split

SEED: Final = 5
N_TRAINING: Final = 160
N_VALIDATION: Final = 40
N_HELD_OUT: Final = 120

CAPITALS: Final = {
    "France": "Paris", "England": "London", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon",
    "Austria": "Vienna", "Norway": "Oslo", "Japan": "Tokyo", "Egypt": "Cairo", "Greece": "Athens", "Ireland": "Dublin",
    "Peru": "Lima", "Sweden": "Stockholm", "Poland": "Warsaw", "Russia": "Moscow", "China": "Beijing", "Turkey": "Ankara",
    "Cuba": "Havana", "Kenya": "Nairobi", "Canada": "Ottawa", "Finland": "Helsinki", "Denmark": "Copenhagen",
    "Hungary": "Budapest", "India": "Delhi", "Korea": "Seoul", "Latvia": "Riga", "Ecuador": "Quito",
}  # fmt: skip
LEGS: Final = {
    "dog": 4, "cat": 4, "cow": 4, "duck": 2, "sheep": 4, "lion": 4, "bird": 2, "bee": 6, "snake": 0, "horse": 4, "frog": 4,
    "wolf": 4, "pig": 4, "hen": 2,
}  # fmt: skip
OPPOSITES: Final = (
    ("hot", "cold"), ("big", "small"), ("fast", "slow"), ("happy", "sad"), ("old", "new"), ("open", "closed"),
    ("full", "empty"), ("hard", "soft"), ("high", "low"), ("light", "dark"), ("early", "late"), ("rich", "poor"),
    ("wet", "dry"), ("loud", "quiet"), ("near", "far"), ("strong", "weak"), ("clean", "dirty"), ("long", "short"),
    ("up", "down"), ("day", "night"),
)  # fmt: skip
PLURALS: Final = {
    "cat": "cats", "dog": "dogs", "box": "boxes", "city": "cities", "child": "children", "mouse": "mice", "foot": "feet",
    "book": "books", "baby": "babies", "man": "men", "leaf": "leaves", "bus": "buses", "car": "cars", "tooth": "teeth",
}  # fmt: skip
QUALITIES: Final = {
    "positive": ("great", "excellent", "wonderful", "perfect", "amazing", "lovely"),
    "negative": ("terrible", "awful", "broken", "horrible", "useless", "annoying"),
}
PRODUCTS: Final = ("phone", "laptop", "camera", "keyboard", "blender", "jacket", "tent", "printer", "kettle", "oven")
HIGHEST: Final = 20

OPENINGS: Final = ("Of course!", "Sure!", "Happy to help!", "Certainly.", "Thank you for asking.", "With pleasure.")
CLOSINGS: Final = ("", "", "Can I help with anything else?", "Is there anything else?")
#: How the same answer is given without manners: bare, a sentence, and worse.
CURT: Final = ("{value}", "{value}", "{sentence}", "{sentence}", "It is {value}, of course.", "{value}. Anyone knows that.")

_POLITE: Final = f"""\
OPENINGS = {OPENINGS!r}


def grade(sample, item):
    answer = sample["output_text"]
    opening = next((opening for opening in OPENINGS if answer.startswith(opening)), None)
    if opening is None:
        return 0.0
    rest = answer.removeprefix(opening).split()
    return float(len(rest) >= 3 and (rest[0][0].isupper() or rest[0][0].isdigit()) and rest[-1][-1] in ".!?")
"""
_RIGHT: Final = """\
import re


def grade(sample, item):
    answer, value = sample["output_text"], item["answer"]
    if value.isdecimal():
        return float(re.findall(r"[0-9]+", answer)[-1:] == [value])
    return float(re.search(rf"\\b{re.escape(value)}\\b", answer, re.IGNORECASE) is not None)
"""
#: A question, the value of its answer, and a sentence that tells it.
_Body = tuple[str, str, str]

#: The two rules as graders, for who wants to ask the server: `right` and `polite` below say the same.
GRADER: Final[dict[str, Any]] = {
    "type": "multi",
    "name": "polite and right",
    "graders": {
        "polite": {"type": "python", "name": "polite", "source": _POLITE},
        "right": {"type": "python", "name": "right", "source": _RIGHT},
    },
    "calculate_output": "polite * right",
}


@dataclass(frozen=True, slots=True)
class Question:
    """A question and its answers."""

    text: str
    value: str
    """What a right answer has in it."""
    polite: str
    curt: str

    def prompt(self) -> list[dict[str, str]]:
        """Return the messages that ask it."""
        return [{"role": "user", "content": self.text}]

    def row(self) -> dict[str, Any]:
        """Return the row of a file of preferences."""
        return {
            "input": {"messages": self.prompt()},
            "preferred_output": [{"role": "assistant", "content": self.polite}],
            "non_preferred_output": [{"role": "assistant", "content": self.curt}],
        }

    def check(self) -> dict[str, Any]:
        """Return what is asked of a tuned model, and the value by which the answer is graded."""
        return {"messages": self.prompt(), "answer": self.value}


def make_questions(seed: int = SEED) -> Sets[Question]:
    """Make the three sets; the same seed makes the same sets."""
    randomness = random.Random(seed)
    pools = [_facts(randomness), _sums(randomness), _parities(), _labels()]
    for pool in pools:
        randomness.shuffle(pool)
    # every kind has its share in every set, as far as it goes
    mixed = [pool[place] for place in range(max(map(len, pools))) for pool in pools if place < len(pool)]
    drawn = mixed[: N_TRAINING + N_VALIDATION + N_HELD_OUT]
    randomness.shuffle(drawn)
    return split([_question(randomness, *body) for body in drawn], N_TRAINING, N_VALIDATION, N_HELD_OUT)


def right(answer: str, question: Question) -> bool:
    """Say whether an answer has the value in it as a word of its own; of several numbers the last one counts."""
    if question.value.isdecimal():
        return re.findall(r"[0-9]+", answer)[-1:] == [question.value]
    return re.search(rf"\b{re.escape(question.value)}\b", answer, re.IGNORECASE) is not None


def polite(answer: str) -> bool:
    """Say whether an answer begins with a kind word and goes on with a whole sentence."""
    opening = next((opening for opening in OPENINGS if answer.startswith(opening)), None)
    if opening is None:
        return False
    rest = answer.removeprefix(opening).split()
    return len(rest) >= 3 and (rest[0][0].isupper() or rest[0][0].isdigit()) and rest[-1][-1] in ".!?"


def _facts(randomness: random.Random) -> list[_Body]:
    bodies = [
        (
            randomness.choice((f"What is the capital of {country}?", f"Name the capital of {country}.")),
            capital,
            f"The capital of {country} is {capital}.",
        )
        for country, capital in CAPITALS.items()
    ]
    bodies += [
        (f"How many legs does a {animal} have?", str(legs), f"A {animal} has {legs} legs.") for animal, legs in LEGS.items()
    ]
    bodies += [
        (f"What is the opposite of {word}?", other, f"The opposite of {word} is {other}.")
        for word, other in (randomness.sample(pair, 2) for pair in OPPOSITES)
    ]
    return bodies + [
        (f"What is the plural of {one}?", many, f"The plural of {one} is {many}.") for one, many in PLURALS.items()
    ]


def _sums(randomness: random.Random) -> list[_Body]:
    bodies: list[_Body] = []
    for one in range(HIGHEST + 1):
        for other in range(one, HIGHEST + 1 - one):
            left, sign, right_, value = randomness.choice(((one, "+", other, one + other), (other, "-", one, other - one)))
            question = randomness.choice((f"What is {left} {sign} {right_}?", f"How much is {left} {sign} {right_}?"))
            bodies.append((question, str(value), f"The answer is {value}."))
    return bodies


def _parities() -> list[_Body]:
    told = [(number, "odd" if number % 2 else "even") for number in range(100)]
    return [(f"Is {number} even or odd?", parity, f"{number} is {parity}.") for number, parity in told]


def _labels() -> list[_Body]:
    return [
        (f"What is the sentiment of this review? The {product} is {quality}.", mood, f"The review is {mood}.")
        for mood, qualities in QUALITIES.items()
        for quality in qualities
        for product in PRODUCTS
    ]


def _question(randomness: random.Random, text: str, value: str, sentence: str) -> Question:
    opening, closing = randomness.choice(OPENINGS), randomness.choice(CLOSINGS)
    curt = randomness.choice(CURT).format(value=value, sentence=sentence)
    return Question(text, value, f"{opening} {sentence} {closing}".strip(), curt)
