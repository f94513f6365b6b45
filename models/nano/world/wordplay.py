"""Lists and strings: order, pick, count, change, repeat and copy."""

import json

from .document import Message, Rng, ask
from .style import styled
from .words import KINDS, distinct, invented, name, sentence, word

ORDINALS = [(0, "first"), (-1, "last"), (1, "second"), (2, "third")]
MARKS = "[](){}<>|=:;#@*_-+/!?.,~$%&^'\""
COPY_REQUESTS = ["Repeat after me: ", "Repeat this: ", "Say: ", "Copy: ", "Write this again: ", "Copy this text: "]


def _reverse(rng: Rng) -> list[Message]:
    words = distinct(rng, rng.randint(2, 5))
    request = rng.choice(["Reverse this list: ", "Reverse the order of these words: "])
    return ask(request + ", ".join(words), ", ".join(words[::-1]))


def _sort_numbers(rng: Rng) -> list[Message]:
    numbers = [rng.randint(0, 99) for _ in range(rng.randint(3, 5))]
    down = rng.random() < 0.3
    rising = ["Sort these numbers: ", "Sort in ascending order: ", "Sort from smallest to largest: "]
    request = rng.choice(["Sort in descending order: ", "Sort from largest to smallest: "] if down else rising)
    return ask(request + ", ".join(map(str, numbers)), ", ".join(map(str, sorted(numbers, reverse=down))))


def _sort_words(rng: Rng) -> list[Message]:
    words = distinct(rng, rng.randint(3, 4))
    request = rng.choice(["Sort these words alphabetically: ", "Put in alphabetical order: "])
    return ask(request + ", ".join(words), ", ".join(sorted(words)))


def _pick(rng: Rng) -> list[Message]:
    words = distinct(rng, rng.randint(3, 6))
    index, ordinal = rng.choice(ORDINALS)
    question = f"What is the {ordinal} word in this list: {', '.join(words)}?"
    return styled(rng, question, words[index], f"The {ordinal} word is {words[index]}.")


def _layout(rng: Rng) -> list[Message]:
    words = distinct(rng, rng.randint(2, 5))
    numbered = "\n".join(f"{place}. {each}" for place, each in enumerate(words, 1))
    request, answer = rng.choice(
        [
            ("Make a bullet list: ", "\n".join(f"- {each}" for each in words)),
            ("Make a numbered list: ", numbered),
            ("Write as a JSON list: ", json.dumps(words)),
            ("Turn this into a JSON array: ", json.dumps(words)),
            ("Separate with commas: ", ",".join(words)),
        ]
    )
    return ask(request + ", ".join(words), answer)


def _members(rng: Rng) -> list[Message]:
    kind = rng.choice(["animal", "fruit", "color", "vehicle"])
    members = rng.sample(KINDS[kind], rng.randint(2, 4))
    return ask(rng.choice([f"Name {len(members)} {kind}s.", f"List {len(members)} {kind}s."]), ", ".join(members))


def listing(rng: Rng) -> list[Message]:
    """Ask for a list in another order or layout, or for one member of it."""
    return rng.choice([_reverse, _sort_numbers, _sort_words, _pick, _layout, _members])(rng)


def _phrase(rng: Rng) -> str:
    return " ".join(distinct(rng, rng.randint(1, 4))) if rng.random() < 0.6 else sentence(rng)


def _case(rng: Rng) -> list[Message]:
    phrase = _phrase(rng)
    if rng.random() < 0.6:
        return ask(
            rng.choice(["Write in upper case: ", "Convert to uppercase: ", "Make this upper case: "]) + phrase,
            phrase.upper(),
        )
    return ask(rng.choice(["Write in lower case: ", "Convert to lowercase: "]) + phrase.upper(), phrase.lower())


def _spell(rng: Rng) -> list[Message]:
    spelled = word(rng)
    return ask(rng.choice([f"Spell the word {spelled}.", f"Spell {spelled}."]), "-".join(spelled))


def _times(rng: Rng) -> list[Message]:
    repeated, n = word(rng), rng.randint(2, 4)
    return ask(f"Write the word {repeated} {n} times.", " ".join([repeated] * n))


def _letter(rng: Rng) -> list[Message]:
    asked = word(rng)
    place, letter = rng.choice([("first", asked[0]), ("last", asked[-1])])
    return styled(rng, f"What is the {place} letter of {asked}?", letter, f"The {place} letter of {asked} is {letter}.")


def _quote(rng: Rng) -> list[Message]:
    phrase = _phrase(rng)
    return ask("Put this in quotes: " + phrase, f'"{phrase}"')


def _edit(rng: Rng) -> list[Message]:
    words = distinct(rng, rng.randint(3, 5))
    old, new = rng.choice(words), word(rng)
    if rng.random() < 0.5:
        kept = [each for each in words if each != old]
        return ask(f"Remove the word {old}: {' '.join(words)}", " ".join(kept))
    return ask(f"Replace {old} with {new}: {' '.join(words)}", " ".join(new if each == old else each for each in words))


def wording(rng: Rng) -> list[Message]:
    """Ask for a change of a text: its case, spelling, quotes or one word of it."""
    return rng.choice([_case, _case, _spell, _times, _letter, _quote, _edit, _edit])(rng)


def _marked(rng: Rng) -> str:
    marks = "".join(rng.choice(MARKS) for _ in range(rng.randint(1, 2)))
    return marks + rng.choice([word(rng), word(rng).upper(), name(rng), str(rng.randint(0, 9999)), ""])


def copying(rng: Rng) -> list[Message]:
    """Ask to repeat invented words, punctuation, numbers and sentences letter by letter."""
    dice = rng.random()
    if dice < 0.4:
        text = " ".join(_marked(rng) for _ in range(rng.randint(1, 4)))
    elif dice < 0.6:
        text = " ".join(rng.choice([invented(rng), invented(rng).capitalize(), word(rng)]) for _ in range(rng.randint(1, 6)))
    else:
        text = _phrase(rng)
    return ask(rng.choice(COPY_REQUESTS) + text, text)
