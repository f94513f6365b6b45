"""Extraction: a sentence goes in, a record of its fields comes out, as JSON or as lines."""

import json

from .document import Message, Rng, ask, assistant, system, user
from .tickets import ticket
from .words import BAD, COLORS, DAYS, GOOD, JOBS, MONTHS, PRODUCTS, city, name, noun, with_article

Record = dict[str, str | int]
IN_JSON = [" Answer in JSON.", " Reply in JSON.", " Return JSON.", " Give me JSON.", " Output JSON."]
EXTRACTORS = [
    "Answer in JSON.",
    "Reply with a JSON object.",
    "Always reply with JSON.",
    "You extract data as JSON.",
    "Return the data as JSON.",
]
REQUESTS = ["Extract the data: {}", "Extract: {}", "Get the fields from this text: {}", "Turn this into data: {}", "{}"]


def _person(rng: Rng) -> tuple[str, Record]:
    who, place, job, age = name(rng), city(rng), rng.choice(JOBS), rng.randint(5, 90)
    texts = [
        f"{who} is {age} years old and lives in {place}.",
        f"{who}, {age}, lives in {place}.",
        f"My name is {who}, I am {age} and I live in {place}.",
        f"{who} from {place} turned {age} today.",
    ]
    if rng.random() < 0.6:
        return rng.choice(texts), {"name": who, "age": age, "city": place}
    texts = [f"{who} is {with_article(job)} in {place}.", f"{who} lives in {place} and works as {with_article(job)}."]
    return rng.choice(texts), {"name": who, "job": job, "city": place}


def _order(rng: Rng) -> tuple[str, Record]:
    who, product, quantity, price = name(rng), rng.choice(PRODUCTS), rng.randint(1, 20), rng.randint(1, 99)
    texts = [
        f"{who} ordered {quantity} {product} for {price} dollars.",
        f"{who} bought {quantity} {product} and paid {price} dollars.",
        f"Order from {who}: {quantity} {product}, {price} dollars.",
        f"For {price} dollars, {who} got {quantity} {product}.",
    ]
    return rng.choice(texts), {"customer": who, "product": product, "quantity": quantity, "price": price}


def _event(rng: Rng) -> tuple[str, Record]:
    who, day, hour = name(rng), rng.choice(DAYS), rng.randint(1, 12)
    event = rng.choice(["meeting", "lunch", "call", "party", "class", "dinner"])
    texts = [
        f"{event.capitalize()} with {who} on {day} at {hour}.",
        f"I have a {event} with {who} on {day} at {hour}.",
        f"{who} has a {event} on {day} at {hour}.",
        f"On {day} at {hour} there is a {event} with {who}.",
    ]
    return rng.choice(texts), {"event": event, "person": who, "day": day, "hour": hour}


def _opinion(rng: Rng) -> tuple[str, Record]:
    who, product, good = name(rng), rng.choice(PRODUCTS), rng.random() < 0.5
    text = f"{who} says: the {product} is {rng.choice(GOOD if good else BAD)}."
    return text, {"name": who, "product": product, "sentiment": "positive" if good else "negative"}


def _thing(rng: Rng) -> tuple[str, Record]:
    thing, color, size, price = (
        noun(rng),
        rng.choice(COLORS),
        rng.choice(["small", "big", "new", "old"]),
        rng.randint(1, 500),
    )
    texts = [f"A {size} {color} {thing} costs {price} dollars.", f"The {thing} is {color} and {size}. It costs {price}."]
    return rng.choice(texts), {"item": thing, "color": color, "size": size, "price": price}


def _date(rng: Rng) -> tuple[str, Record]:
    who, month, day, year = name(rng), rng.choice(MONTHS), rng.randint(1, 28), rng.randint(1950, 2030)
    texts = [f"{who} was born on {month} {day}, {year}.", f"On {month} {day}, {year}, {who} came home."]
    return rng.choice(texts), {"name": who, "month": month, "day": day, "year": year}


def _complaint(rng: Rng) -> tuple[str, Record]:
    source = ticket(rng)
    record: Record = {"topic": source.topic}
    if source.product is not None:
        record["product"] = source.product
    if source.order is not None:
        record["number"] = source.order
    return source.text, record


def record(rng: Rng) -> tuple[str, Record]:
    """Draw a sentence and the fields that it tells."""
    return rng.choice([_person, _person, _order, _order, _event, _opinion, _thing, _date, _complaint])(rng)


def _lines(fields: Record) -> str:
    return ", ".join(f"{key}: {value}" for key, value in fields.items())


def _chosen(rng: Rng, text: str, fields: Record) -> list[Message]:
    """Name the wanted keys in the instruction, in any order."""
    keys = rng.sample(list(fields), rng.randint(1, len(fields)))
    wanted = json.dumps({key: fields[key] for key in keys})
    prompt = rng.choice(
        ["Extract {} as JSON.", "Return JSON with the keys {}.", "Answer with a JSON object with {}.", "JSON keys: {}."]
    )
    instruction = prompt.format(", ".join(keys))
    if rng.random() < 0.6:
        return [system(instruction), user(text), assistant(wanted)]
    return ask(f"{instruction} {text}", wanted)


def extraction(rng: Rng) -> list[Message]:
    """Ask for the fields of a sentence."""
    text, fields = record(rng)
    question, data = rng.choice(REQUESTS).format(text), json.dumps(fields)
    dice = rng.random()
    if dice < 0.25:
        return ask(question + rng.choice(IN_JSON), data)
    if dice < 0.4:
        return [system(rng.choice(EXTRACTORS)), *ask(question, data)]
    if dice < 0.7:
        return _chosen(rng, text, fields)
    if dice < 0.78:
        return ask("Write as JSON: " + _lines(fields), data)
    if dice < 0.86:
        key = rng.choice(list(fields))
        return ask(f"{rng.choice(['What is the', 'Give me the', 'Find the'])} {key}? {text}", str(fields[key]))
    if question == text:
        question = "Extract: " + text
    return ask(question, rng.choice([data, _lines(fields), _lines(fields)]))
