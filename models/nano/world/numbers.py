"""Sums, story sums and comparisons of numbers."""

from .document import Message, Rng, ask
from .style import styled
from .words import distinct, name

ITEMS = ["apples", "books", "coins", "stars", "cakes", "pens", "cards", "stamps", "keys", "cups"]
WORDS = {"+": "plus", "-": "minus", "*": "times"}


def _operands(rng: Rng) -> tuple[int, str, int, int]:
    """Draw a sum: two thirds within 0..20, the rest up to 99, some times tables."""
    high = 20 if rng.random() < 0.72 else 99
    a, b = rng.randint(0, high), rng.randint(0, high)
    dice = rng.random()
    if dice < 0.48:
        return a, "+", b, a + b
    if dice < 0.86:
        a, b = max(a, b), min(a, b)
        return a, "-", b, a - b
    a, b = rng.randint(0, 10), rng.randint(0, 10)
    return a, "*", b, a * b


def arithmetic(rng: Rng) -> list[Message]:
    """Ask for a sum of two numbers."""
    a, sign, b, value = _operands(rng)
    spoken = WORDS[sign]
    question = rng.choice(
        [
            f"What is {a} {sign} {b}?",
            f"What is {a} {spoken} {b}?",
            f"Calculate {a} {sign} {b}.",
            f"{a} {sign} {b}",
            f"{a} {sign} {b} =",
            f"Compute {a} {spoken} {b}.",
            f"How much is {a} {sign} {b}?",
            f"Solve: {a} {sign} {b}",
        ]
    )
    return styled(rng, question, str(value), f"The answer is {value}.", f"{a} {sign} {b} = {value}")


def drill(rng: Rng) -> list[Message]:
    """Write out a column of small sums."""
    lines: list[str] = []
    for _ in range(rng.randint(4, 12)):
        a, b = rng.randint(0, 20), rng.randint(0, 20)
        sign = rng.choice("+-")
        if sign == "-":
            a, b = max(a, b), min(a, b)
        lines.append(f"{a} {sign} {b} = {a + b if sign == '+' else a - b}")
    return ask(rng.choice(["Practise sums.", "Write some sums.", "Give me a list of sums."]), "\n".join(lines))


def story_sum(rng: Rng) -> list[Message]:
    """Ask for a sum that a small story tells."""
    who, other, items, a, b = name(rng), name(rng), rng.choice(ITEMS), rng.randint(1, 20), rng.randint(1, 20)
    if rng.random() < 0.5:
        value = a + b
        gain = rng.choice([f"gets {b} more", f"buys {b} more", f"finds {b} more", f"gets {b} from {other}"])
        question = f"{who} has {a} {items} and {gain}. How many {items} does {who} have?"
    else:
        a, b = max(a, b), min(a, b)
        value = a - b
        loss = rng.choice([f"gives away {b}", f"loses {b}", f"sells {b}", f"gives {b} to {other}"])
        question = f"{who} has {a} {items} and {loss}. How many {items} does {who} have?"
    return styled(rng, question, str(value), f"{who} has {value} {items}.")


def _extreme_of_two(rng: Rng) -> list[Message]:
    a, b = rng.sample(range(100), 2)
    pick, label = rng.choice([(max, "larger"), (min, "smaller"), (max, "bigger")])
    return styled(rng, f"Which is {label}, {a} or {b}?", str(pick(a, b)), f"{pick(a, b)} is {label}.")


def _extreme_of_many(rng: Rng) -> list[Message]:
    numbers = rng.sample(range(100), rng.randint(3, 5))
    pick, label = rng.choice([(max, "largest"), (min, "smallest")])
    listed = ", ".join(map(str, numbers))
    value = pick(numbers)
    return styled(rng, f"What is the {label} number in {listed}?", str(value), f"The {label} number is {value}.")


def _count(rng: Rng) -> list[Message]:
    words = distinct(rng, rng.randint(2, 7))
    question = rng.choice(["How many words are here: ", "Count the words: "]) + " ".join(words)
    return styled(rng, question, str(len(words)), f"There are {len(words)} words.")


def _parity(rng: Rng) -> list[Message]:
    a = rng.randint(0, 99)
    value = "odd" if a % 2 else "even"
    return styled(rng, f"Is {a} even or odd?", value, f"{a} is {value}.")


def _truth(rng: Rng) -> list[Message]:
    a, b = rng.sample(range(50), 2)
    holds, label = rng.choice([(a > b, "more"), (a < b, "less")])
    value = "yes" if holds else "no"
    return styled(
        rng, f"Is {a} {label} than {b}?", value, f"{value.capitalize()}, {a} is {'' if holds else 'not '}{label} than {b}."
    )


def comparison(rng: Rng) -> list[Message]:
    """Ask which number is larger, how many there are, and the like."""
    return rng.choice([_extreme_of_two, _extreme_of_many, _count, _parity, _truth])(rng)
