"""Long texts, up to the whole context: many turns, notes to look things up in, lists of tickets, tables, many examples."""

from .document import Document, Message, Rng, ask, assistant, system, user
from .facts import passage
from .tickets import ticket
from .words import CITIES, COLORS, DAYS, FOODS, JOBS, NAMES, NOUNS, invented, sentence, with_article

CHARACTERS_PER_TOKEN = 3.4
ABOUT = [
    ("{w} lives in {v}.", "Where does {w} live?", CITIES), ("{w} has a {v} bag.", "What color is the bag of {w}?", COLORS),
    ("{w} comes on {v}.", "When does {w} come?", DAYS), ("{w} likes {v}.", "What does {w} like?", FOODS),
    ("{w} works as {a}.", "What is the job of {w}?", JOBS),
]  # fmt: skip


def size(messages: list[Message]) -> float:
    """Estimate the number of tokens of a conversation."""
    return sum(len(message.get("content") or "") / CHARACTERS_PER_TOKEN + 5 for message in messages)


def notes(rng: Rng, n_tokens: int) -> tuple[list[str], list[tuple[str, str, int]]]:
    """Draw statements that fill n_tokens, and for each of them a question, its answer and its place in the text."""
    statements: list[str] = []
    asked: list[tuple[str, str, int]] = []
    pairs = [(who, about) for who in NAMES for about in ABOUT]
    rng.shuffle(pairs)
    length = 0.0
    for who, (statement, question, values) in pairs:
        value = rng.choice(values)
        text = statement.format(w=who, v=value, a=with_article(value))
        if rng.random() < 0.25:
            text = f"{text} {sentence(rng)}"
        asked.append((question.format(w=who), value, len(statements)))
        statements.append(text)
        length += len(text) / CHARACTERS_PER_TOKEN
        if length > n_tokens:
            break
    return statements, asked


def notebook(rng: Rng, n_tokens: int) -> list[Message]:
    """Tell many statements, then ask for several of them."""
    statements, asked = notes(rng, n_tokens)
    chosen = rng.sample(asked, min(len(asked), rng.randint(4, 10)))
    question, answer, _ = chosen[0]
    opening = " ".join(statements)
    first = [system(f"Notes: {opening}"), user(question)] if rng.random() < 0.5 else [user(f"{opening}\n{question}")]
    turns = [*first, assistant(answer)]
    for question, answer, _ in chosen[1:]:
        turns += ask(question, answer)
    return turns


def short_notes(rng: Rng) -> list[Message]:
    """Draw a notebook of a few statements."""
    return notebook(rng, rng.randint(20, 160))


def inbox(rng: Rng, n_tokens: int) -> list[Message]:
    """List many numbered tickets, then ask about some of them."""
    tickets = []
    while sum(len(each.text) / CHARACTERS_PER_TOKEN + 5 for each in tickets) < n_tokens:
        tickets.append(ticket(rng))
    listed = "\n".join(f"{place}. {each.text}" for place, each in enumerate(tickets, 1))
    turns: list[Message] = []
    for _ in range(rng.randint(3, 7)):
        place = rng.randrange(len(tickets))
        question, answer = rng.choice(
            [
                (f"Repeat ticket {place + 1}.", tickets[place].text),
                (f"Which team should handle ticket {place + 1}?", tickets[place].topic),
            ]
        )
        turns += ask(question if turns else f"{listed}\n{question}", answer)
    return turns


def table(rng: Rng, n_tokens: int) -> list[Message]:
    """List keys with codes, then ask for several codes."""
    keys = rng.sample(NOUNS, min(len(NOUNS), max(3, n_tokens // 9)))
    codes = {key: rng.choice([str(rng.randint(10, 9999)), invented(rng)]) for key in keys}
    listed = rng.choice(["\n", ", ", "; "]).join(f"{key}: {code}" for key, code in codes.items())
    turns: list[Message] = []
    for key in rng.sample(keys, min(len(keys), rng.randint(3, 10))):
        question = rng.choice([f"What is the code of {key}?", f"Look up {key}.", f"{key}?"])
        turns += ask(question if turns else f"{listed}\n{question}", codes[key])
    return turns


def examples(rng: Rng, n_tokens: int) -> list[Message]:
    """Show many labelled tickets under invented labels, so that the labels must be learnt on the way."""
    topics = rng.sample(["billing", "shipping", "technical", "account", "returns", "sales"], rng.randint(2, 4))
    labels = {topic: rng.choice([invented(rng), rng.choice("ABCDEFGH") + str(rng.randint(1, 9)), topic]) for topic in topics}
    turns: list[Message] = [system("Label each message.")] if rng.random() < 0.5 else []
    while size(turns) < n_tokens:
        source = ticket(rng, rng.choice(topics))
        turns += ask(source.text, labels[source.topic])
    return turns


def recall(rng: Rng) -> list[Message]:
    """Tell a few statements over several turns, then ask for one."""
    lines = passage(rng, rng.randint(2, 5))
    turns: list[Message] = []
    for statement, *_ in lines:
        turns += ask(statement, rng.choice(["I see.", "Noted.", "OK."]))
    _, for_value, _, value = rng.choice(lines)
    return turns + ask(for_value, value)


def long_document(rng: Rng, n_tokens: int, turns: list[Message]) -> Document:
    """Draw a long text of about n_tokens; the given turns are used when a plain conversation is drawn."""
    dice = rng.random()
    if dice < 0.35:
        return Document(turns)
    kind = rng.choice([notebook, notebook, inbox, table, examples])
    return Document(kind(rng, n_tokens))
