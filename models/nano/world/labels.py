"""Classification: a label set stands in the system message or the question, the answer is a label or a line of labels."""

import json
from dataclasses import dataclass

from .document import Message, Rng, ask, assistant, system, user
from .style import styled
from .tickets import Ticket, ticket
from .words import BAD, DAYS, GOOD, KINDS, PLAIN, PRODUCTS, invented, name, with_article

TOPIC_NAMES = {
    "billing": ["billing", "billing", "payments", "finance", "invoices", "money"],
    "shipping": ["shipping", "shipping", "delivery", "logistics", "orders", "parcels"],
    "technical": ["technical", "technical", "tech", "support", "bugs", "engineering"],
    "account": ["account", "account", "accounts", "login", "access", "users"],
    "returns": ["returns", "returns", "refunds", "exchange", "refund"],
    "sales": ["sales", "sales", "product", "questions", "shop"],
}
URGENCY_NAMES = [
    {"high": "high", "normal": "normal", "low": "low"},
    {"high": "high", "normal": "medium", "low": "low"},
    {"high": "urgent", "normal": "normal", "low": "low"},
    {"high": "P1", "normal": "P2", "low": "P3"},
    {"high": "1", "normal": "2", "low": "3"},
]
TOPIC_KEYS = ["team", "team", "queue", "department", "category", "topic", "label"]
URGENCY_KEYS = ["priority", "priority", "urgency", "severity", "level"]
PRODUCT_KEYS = ["product", "product", "item", "device"]
ROLES = [
    "You route support tickets.", "You label customer messages.", "Read the ticket.", "You are a support router.",
    "Sort each customer message.", "You are a triage assistant.", "Classify the message of the customer.", "",
]  # fmt: skip
SPAM = [
    "Win a free {p} now! Click here!",
    "You have won {n} dollars! Call now!",
    "Cheap {p}s! Buy today!",
    "Click here for {n} dollars!",
]
HAM = [
    "Are we still meeting on {d}?",
    "Please send me the report by {d}.",
    "See you at the office on {d}.",
    "Thanks for the {p}, {w}.",
]
KIND_WORDS = [
    "Thank you very much, {w}.",
    "Could you please help me, {w}?",
    "I would be glad to help you.",
    "Have a nice day, {w}!",
]
RUDE_WORDS = [
    "Go away, {w}.",
    "That is your problem.",
    "Stop asking me, {w}.",
    "I do not care.",
    "Figure it out yourself, {w}.",
]


def review(rng: Rng, mood: str) -> str:
    """Draw a customer's opinion of a product."""
    product = rng.choice(PRODUCTS)
    quality = rng.choice({"positive": GOOD, "negative": BAD, "neutral": PLAIN}[mood])
    tail = {
        "positive": ["I love it", "I am happy", "well done", "I will buy it again"],
        "negative": ["I hate it", "I want my money back", "never again", "what a waste"],
        "neutral": ["nothing special", "it works", "it does its job"],
    }[mood]
    return rng.choice(
        [
            f"The {product} is {quality}.",
            f"This {product} is {quality}{'.' if mood == 'neutral' else '!'}",
            f"I think the {product} was {quality}.",
            f"My new {product} is {quality}, {rng.choice(tail)}.",
            f"{rng.choice(tail).capitalize()}. The {product} is {quality}.",
        ]
    )


@dataclass(frozen=True)
class Field:
    """One line of a label set: its key, its allowed values and the value that is right."""

    key: str
    values: list[str]
    value: str | None


def _fields(rng: Rng, source: Ticket) -> list[Field]:
    """Draw which labels are asked for a ticket, and under what names."""
    topics = [source.topic, *rng.sample([t for t in TOPIC_NAMES if t != source.topic], rng.randint(1, 5))]
    rng.shuffle(topics)
    called = {topic: rng.choice(TOPIC_NAMES[topic]) for topic in topics}
    urgencies = rng.choice(URGENCY_NAMES)
    topic = Field(rng.choice(TOPIC_KEYS), list(called.values()), called[source.topic])
    urgency = Field(rng.choice(URGENCY_KEYS), list(urgencies.values()), urgencies[source.urgency])
    product = Field(rng.choice(PRODUCT_KEYS), ["the product"], source.product)
    fields = [topic, *([urgency] if rng.random() < 0.6 else []), *([product] if rng.random() < 0.45 else [])]
    if rng.random() < 0.2:
        rng.shuffle(fields)
    return fields


def _line(form: str, fields: list[Field]) -> str:
    """Write the right labels in one of the house's formats."""
    shown = [(field.key, "none" if field.value is None else field.value) for field in fields]
    if form == "json":
        return json.dumps({field.key: field.value for field in fields})
    if form == "pairs":
        return "; ".join(f"{key}={value}" for key, value in shown)
    if form == "lines":
        return "\n".join(f"{key}: {value}" for key, value in shown)
    if form == "upper":
        first, *rest = shown
        return " ".join([f"[{first[1].upper()}]", *(f"{key}={value}" for key, value in rest)])
    return {"bars": " | ", "csv": ","}[form].join(value for _, value in shown)


def _options(rng: Rng, field: Field) -> str:
    return rng.choice([", ", " or ", "|", " / "]).join(field.values)


def _instruction(rng: Rng, form: str, fields: list[Field]) -> str:
    """Tell the label set and the format, in one of several wordings."""
    sets = [f"{field.key}: {_options(rng, field)}" for field in fields]
    keys = ", ".join(field.key for field in fields)
    if form == "json":
        shape = "{" + ", ".join(f'"{field.key}": "{_options(rng, field)}"' for field in fields) + "}"
        wordings = [
            f"Answer with JSON like {shape}.",
            f"Reply with a JSON object with the keys {keys}. {'. '.join(sets)}.",
            f"Return JSON. {'; '.join(sets)}.",
            f"Output only JSON: {shape}",
        ]
    else:
        shape = _line(form, [Field(field.key, [], field.key if form in {"bars", "csv"} else "...") for field in fields])
        wordings = [f"Answer in the form {shape!r}. {'. '.join(sets)}.", f"Write one line: {shape}\n" + "\n".join(sets)]
    return " ".join([rng.choice(ROLES), rng.choice(wordings)]).strip()


def ticket_labels(rng: Rng) -> list[Message]:
    """Ask for a ticket's labels under a label set of the system message."""
    source = ticket(rng)
    fields = _fields(rng, source)
    form = rng.choices(["json", "pairs", "lines", "upper", "bars", "csv"], [10, 2, 2, 1, 2, 1])[0]
    instruction, answer = _instruction(rng, form, fields), _line(form, fields)
    if rng.random() < 0.75:
        return [system(instruction), user(source.text), assistant(answer)]
    return ask(f"{instruction}\n{rng.choice(['Ticket', 'Message', 'Text'])}: {source.text}", answer)


def _labelled(rng: Rng) -> tuple[str, list[str], str]:
    """Draw a text, the labels it may have and the right one."""
    dice = rng.random()
    if dice < 0.45:
        source = ticket(rng)
        topics = [source.topic, *rng.sample([t for t in TOPIC_NAMES if t != source.topic], rng.randint(1, 5))]
        called = {topic: rng.choice(TOPIC_NAMES[topic]) for topic in topics}
        return source.text, list(called.values()), called[source.topic]
    if dice < 0.7:
        mood = rng.choice(["positive", "negative", "neutral"])
        called = dict(
            zip(
                ["positive", "negative", "neutral"],
                rng.choice([["positive", "negative", "neutral"], ["good", "bad", "plain"]]),
                strict=True,
            )
        )
        return review(rng, mood), list(called.values()), called[mood]
    if dice < 0.85:
        kinds = rng.sample(list(KINDS), rng.randint(2, 4))
        return rng.choice(KINDS[kinds[0]]), kinds, kinds[0]
    spam = rng.random() < 0.5
    text = rng.choice(SPAM if spam else HAM).format(
        p=rng.choice(PRODUCTS), n=rng.randint(100, 999), d=rng.choice(DAYS), w=name(rng)
    )
    return text, ["spam", "ok"], "spam" if spam else "ok"


def one_of(rng: Rng) -> list[Message]:
    """Ask for one label of a set; sometimes the labels are invented words that the system message explains."""
    text, values, value = _labelled(rng)
    if rng.random() < 0.15:
        codes = {each: rng.choice([invented(rng), rng.choice("ABCDEFGH") + str(place)]) for place, each in enumerate(values)}
        explained = ". ".join(f"{code} means {each}" for each, code in codes.items())
        return [system(f"Answer with a code. {explained}."), user(text), assistant(codes[value])]
    rng.shuffle(values)
    listed = rng.choice([", ", " or ", "|"]).join(values)
    prompt = rng.choice(
        ["Answer with one of: {}.", "Labels: {}. Answer with one label.", "Classify the text as {}.", "Choose: {}."]
    )
    if rng.random() < 0.7:
        return [system(prompt.format(listed)), user(text), assistant(value)]
    return ask(f"{prompt.format(listed)} {text}", value)


def _sentiment(rng: Rng) -> list[Message]:
    mood = rng.choice(["positive", "negative", "neutral"])
    text = review(rng, mood)
    question = rng.choice(
        [
            "Is this review positive, negative or neutral? {}",
            "What is the sentiment of this review? {}",
            "Classify the sentiment: {}",
        ]
    )
    return styled(rng, question.format(text), mood, f"The review is {mood}.", f"Sentiment: {mood}")


def _team(rng: Rng) -> list[Message]:
    source = ticket(rng)
    question = rng.choice(
        ["Classify this support ticket: {}", "Which team should handle this ticket? {}", "What is this ticket about? {}"]
    )
    full = f"This ticket is about {source.topic}."
    return styled(rng, question.format(source.text), source.topic, full, f"Category: {source.topic}")


def _urgent(rng: Rng) -> list[Message]:
    source = ticket(rng)
    value = "yes" if source.urgency == "high" else "no"
    full = "Yes, this ticket is urgent." if value == "yes" else "No, this ticket is not urgent."
    return styled(rng, f"Is this ticket urgent? {source.text}", value, full)


def _spam(rng: Rng) -> list[Message]:
    spam = rng.random() < 0.5
    text = rng.choice(SPAM if spam else HAM).format(
        p=rng.choice(PRODUCTS), n=rng.randint(100, 999), d=rng.choice(DAYS), w=name(rng)
    )
    return styled(
        rng,
        f"Is this message spam? {text}",
        "yes" if spam else "no",
        f"{'Yes, this is' if spam else 'No, this is not'} spam.",
    )


def _polite(rng: Rng) -> list[Message]:
    kind = rng.random() < 0.5
    text = rng.choice(KIND_WORDS if kind else RUDE_WORDS).format(w=name(rng))
    full = f"{'Yes, this reply is' if kind else 'No, this reply is not'} polite."
    return styled(rng, f"Is this reply polite? {text}", "yes" if kind else "no", full)


def _kind(rng: Rng) -> list[Message]:
    kind = rng.choice(list(KINDS))
    member = rng.choice(KINDS[kind])
    full = f"{with_article(member).capitalize()} is {with_article(kind)}."
    if kind in {"food", "furniture", "color"}:
        full = f"{member.capitalize()} is {kind if kind != 'color' else 'a color'}."
    return styled(
        rng, rng.choice([f"What kind of thing is {with_article(member)}?", f"What category is {member}?"]), kind, full
    )


def classification(rng: Rng) -> list[Message]:
    """Ask for one label of a text."""
    return rng.choice([one_of, one_of, one_of, _sentiment, _team, _team, _urgent, _spam, _polite, _kind])(rng)
