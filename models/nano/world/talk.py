"""Greetings, small talk, sentences on request, replies to customers, and calls of one tool."""

from .document import Document, Message, Rng, Tool, ask, assistant, system, user
from .facts import fact
from .numbers import arithmetic
from .tickets import REPLIES, ticket
from .words import ADJECTIVES, COLORS, city, distinct, invented, name, noun, sentence, with_article

GREETINGS = ["Hi", "Hello", "Hello!", "Hi there", "Good morning", "Hey", "Good evening", "hi", "hello"]
WELCOMES = ["Hello! How can I help you?", "Hi! What can I do for you?"]
SELF = "I am tunesmith-nano, a very small language model."
ABLE = "I can do small sums, sort lists, classify text and extract data."
SMALL_TALK = [
    (GREETINGS, WELCOMES),
    (["Who are you?", "What are you?", "What is your name?", "Are you a robot?"], [SELF]),
    (["Thanks", "Thank you", "Thank you!", "Thanks a lot"], ["You are welcome!", "Happy to help!"]),
    (["What can you do?", "Help", "Can you help me?", "How can you help me?"], [ABLE]),
    (["How are you?", "How are you today?"], ["I am fine, thank you.", "I am well. How are you?"]),
    (["Bye", "Goodbye", "See you"], ["Goodbye!", "See you soon!"]),
]
TOOLS = [
    ("get_weather", "Get the weather in a city.", "city"), ("get_time", "Get the time in a city.", "city"),
    ("search", "Search the web.", "query"), ("get_order", "Look up an order.", "order_id"),
    ("send_email", "Send an email to a person.", "to"), ("play_music", "Play a song or artist.", "name"),
    ("lookup_customer", "Find a customer.", "name"), ("cancel_order", "Cancel an order.", "order_id"),
]  # fmt: skip


def _small_talk(rng: Rng) -> list[Message]:
    said, answers = rng.choice(SMALL_TALK)
    return ask(rng.choice(said), rng.choice(answers))


def _introduction(rng: Rng) -> list[Message]:
    who = name(rng)
    turns = ask(f"{rng.choice(['My name is', 'I am', 'Hello, my name is'])} {who}.", f"Nice to meet you, {who}!")
    return turns + (ask("What is my name?", f"Your name is {who}.") if rng.random() < 0.7 else [])


def _support_reply(rng: Rng) -> list[Message]:
    source = ticket(rng)
    plan = REPLIES[source.topic]
    short = f"{plan.capitalize()}."
    polite = rng.choice(
        [f"I am sorry about that, {plan}.", f"Thank you for your message. {short}", f"We are sorry for the trouble. {short}"]
    )
    dice = rng.random()
    if dice < 0.5:
        return ask(source.text, rng.choice([short, short, polite]))
    if dice < 0.75:
        return [
            system(rng.choice(["You are a polite support agent.", "Answer the customer politely."])),
            *ask(source.text, polite),
        ]
    return [
        system(rng.choice(["You are a support agent.", "Answer the customer in a few words."])),
        *ask(source.text, short),
    ]


def _about(rng: Rng) -> list[Message]:
    thing, quality, color = noun(rng), rng.choice(ADJECTIVES), rng.choice(COLORS)
    told = [
        f"The {thing} is {quality}.",
        f"I see {with_article(color)} {thing}.",
        f"The {thing} is {color} and {quality}.",
        f"{name(rng)} has {with_article(thing)}.",
    ]
    request = rng.choice(
        [
            f"Write a sentence about {with_article(thing)}.",
            f"Tell me about {with_article(thing)}.",
            f"Use the word {thing} in a sentence.",
        ]
    )
    return ask(request, rng.choice(told))


def _continue(rng: Rng) -> list[Message]:
    n = rng.randint(2, 3)
    return ask(f"Write {n} sentences.", " ".join(sentence(rng) for _ in range(n)))


def _unknown(rng: Rng) -> list[Message]:
    strange = invented(rng)
    asked = [
        f"What is {with_article(strange)}?",
        f"Who is the king of {strange.capitalize()}?",
        f"Where is {strange.capitalize()}?",
    ]
    return ask(rng.choice(asked), "I do not know.")


def talk(rng: Rng) -> list[Message]:
    """Draw a piece of small talk, a customer's message with its reply, or a sentence on request."""
    return rng.choice(
        [_small_talk, _small_talk, _introduction, _support_reply, _support_reply, _about, _continue, _unknown]
    )(rng)


def _definition(tool: tuple[str, str, str]) -> Tool:
    called, description, parameter = tool
    schema = {"type": "object", "properties": {parameter: {"type": "string"}}, "required": [parameter]}
    return {"type": "function", "function": {"name": called, "description": description, "parameters": schema}}


def _request(rng: Rng, called: str, parameter: str) -> tuple[str, str]:
    """Draw a request that the tool answers, and the argument of the call."""
    if parameter == "city":
        value, topic = city(rng), called.removeprefix("get_")
        return rng.choice([f"What is the {topic} in {value}?", f"Tell me the {topic} in {value}."]), value
    if parameter == "order_id":
        value = str(rng.randint(100, 9999))
        return (f"Cancel order {value}." if called == "cancel_order" else f"Where is order {value}?"), value
    value = " ".join(distinct(rng, 2)) if called == "search" else name(rng)
    wording = {
        "search": "Search for {}.",
        "send_email": "Send an email to {}.",
        "play_music": "Play music by {}.",
        "lookup_customer": "Find the customer {}.",
    }
    return wording[called].format(value), value


def _result(rng: Rng, called: str, value: str) -> tuple[str, str]:
    if called == "get_weather":
        weather = rng.choice(["sunny", "rainy", "cloudy", "windy", "cold", "hot"])
        return weather, f"The weather in {value} is {weather}."
    if called == "get_time":
        time = f"{rng.randint(1, 12)}:{rng.randint(10, 59)}"
        return time, f"It is {time} in {value}."
    state = rng.choice(["shipped", "late", "delivered", "cancelled", "open"])
    return state, f"The result for {value} is {state}."


def tool_call(rng: Rng) -> Document:
    """Ask for something that a tool can do, or, with tools at hand, for something that needs none."""
    drawn = rng.sample(TOOLS, rng.randint(1, 3))
    called, _, parameter = drawn[0]
    tools = [_definition(tool) for tool in rng.sample(drawn, len(drawn))]
    if rng.random() < 0.2:
        turns = rng.choice([arithmetic, fact, _small_talk])(rng)
        return Document([message for message in turns if message["role"] != "system"][:2], tools)
    question, value = _request(rng, called, parameter)
    call = {"id": "call_1", "type": "function", "function": {"name": called, "arguments": {parameter: value}}}
    turns = [user(question), {"role": "assistant", "content": None, "tool_calls": [call]}]
    if rng.random() < 0.4:
        result, answer = _result(rng, called, value)
        turns += [{"role": "tool", "tool_call_id": "call_1", "content": result}, assistant(answer)]
    return Document(turns, tools)
