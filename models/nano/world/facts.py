"""What is known in the closed world, and what a short passage tells."""

from .document import Message, Rng
from .style import styled
from .words import (
    ANIMALS,
    CAPITALS,
    COLORS,
    DAYS,
    FOODS,
    FRUITS,
    JOBS,
    MONTHS,
    NAMES,
    OPPOSITES,
    PASTS,
    PLURALS,
    city,
    distinct,
    noun,
    with_article,
)


def _capital(rng: Rng) -> list[Message]:
    country, capital = rng.choice(list(CAPITALS.items()))
    questions = [
        f"What is the capital of {country}?",
        f"Name the capital of {country}.",
        f"Which city is the capital of {country}?",
    ]
    if rng.random() < 0.25:
        return styled(rng, f"{capital} is the capital of which country?", country, f"{capital} is the capital of {country}.")
    return styled(rng, rng.choice(questions), capital, f"The capital of {country} is {capital}.")


def _animal(rng: Rng) -> list[Message]:
    animal, (sound, legs) = rng.choice(list(ANIMALS.items()))
    if rng.random() < 0.5:
        question = rng.choice(
            [f"How many legs does {with_article(animal)} have?", f"Number of legs of {with_article(animal)}?"]
        )
        return styled(rng, question, str(legs), f"{with_article(animal).capitalize()} has {legs} legs.")
    question = rng.choice([f"What does {with_article(animal)} do?", f"What sound does {with_article(animal)} make?"])
    return styled(rng, question, sound, f"{with_article(animal).capitalize()} {sound}.")


def _opposite(rng: Rng) -> list[Message]:
    pair = list(rng.choice(OPPOSITES))
    rng.shuffle(pair)
    question = rng.choice(
        [f"What is the opposite of {pair[0]}?", f"Opposite of {pair[0]}?", f"Give the opposite of {pair[0]}."]
    )
    return styled(rng, question, pair[1], f"The opposite of {pair[0]} is {pair[1]}.")


def _grammar(rng: Rng) -> list[Message]:
    if rng.random() < 0.5:
        verb, past = rng.choice(list(PASTS.items()))
        return styled(
            rng,
            rng.choice([f"What is the past of {verb}?", f"Past tense of {verb}?"]),
            past,
            f"The past of {verb} is {past}.",
        )
    one, many = rng.choice(list(PLURALS.items()))
    return styled(
        rng, rng.choice([f"What is the plural of {one}?", f"Plural of {one}?"]), many, f"The plural of {one} is {many}."
    )


def _calendar(rng: Rng) -> list[Message]:
    names = rng.choice([DAYS, MONTHS])
    unit = "day" if names is DAYS else "month"
    place = rng.randrange(len(names))
    step, side = rng.choice([(1, "after"), (-1, "before")])
    answer = names[(place + step) % len(names)]
    question = rng.choice([f"Which {unit} comes {side} {names[place]}?", f"What is the {unit} {side} {names[place]}?"])
    return styled(rng, question, answer, f"{answer} comes {side} {names[place]}.")


def fact(rng: Rng) -> list[Message]:
    """Ask for something that is always true in this world."""
    return rng.choice([_capital, _capital, _animal, _opposite, _grammar, _calendar])(rng)


def passage(rng: Rng, n: int) -> list[tuple[str, str, str, str]]:
    """Draw n statements of one kind about n people: statement, question for the value, question for the person, value."""
    people = rng.sample(NAMES, n)
    kind = rng.randrange(6)
    lines: list[tuple[str, str, str, str]] = []
    if kind < 2:
        things = distinct(rng, n)
        for who, thing in zip(people, things, strict=True):
            value, asked = (
                (f"a {rng.choice(COLORS)} {thing}", f"Who has the {thing}?") if kind else (thing, f"Who has the {thing}?")
            )
            lines.append(
                (
                    f"{who} has {value if kind else 'the ' + thing}.",
                    f"What does {who} have?",
                    asked,
                    value if kind else "the " + thing,
                )
            )
        return lines
    templates = {
        2: (rng.sample(JOBS, min(n, len(JOBS))), "{w} is {a}.", "What is the job of {w}?", "Who is {a}?"),
        3: ([city(rng) for _ in people], "{w} lives in {v}.", "Where does {w} live?", "Who lives in {v}?"),
        4: ([rng.choice([*FRUITS, *FOODS]) for _ in people], "{w} likes {v}.", "What does {w} like?", "Who likes {v}?"),
        5: ([str(rng.randint(5, 90)) for _ in people], "{w} is {v} years old.", "How old is {w}?", "Who is {v} years old?"),
    }
    values, statement, for_value, for_person = templates[kind]
    for who, value in zip(people, values, strict=False):
        filled = {"w": who, "v": value, "a": with_article(value)}
        shown = with_article(value) if kind == 2 else value
        lines.append((statement.format(**filled), for_value.format(**filled), for_person.format(**filled), shown))
    return lines


def reading(rng: Rng) -> list[Message]:
    """Tell two to four statements and ask about one of them."""
    lines = passage(rng, rng.randint(2, 4))
    statement, for_value, for_person, value = rng.choice(lines)
    told = " ".join(line[0] for line in lines)
    extra = f"The {noun(rng)} is {rng.choice(COLORS)}. " if rng.random() < 0.2 else ""
    unique = sum(line[3] == value for line in lines) == 1
    if unique and rng.random() < 0.5:
        return styled(rng, f"{extra}{told} {for_person}", statement.split()[0], statement)
    return styled(rng, f"{extra}{told} {for_value}", value, statement)
