"""Made-up support tickets with the label that routes them: the demonstration's data, from a seed, with its own scoring rule.

A ticket is a greeting, a sentence about a product that tells the team, and a sentence that tells the priority. The three
sets of a seed share no ticket: no problem, urgency and product come together in two tickets, whatever stands around them.
"""

import random
from dataclasses import dataclass
from typing import Final

from tunesmith.cli.demo.rows import Sets, split

SEED: Final = 20
N_TRAINING: Final = 260
N_VALIDATION: Final = 40
N_HELD_OUT: Final = 120

PRODUCTS: Final = ("phone", "laptop", "printer", "router", "camera")

#: What a customer says to each team; `{product}` is what they bought.
PROBLEMS: Final[dict[str, tuple[str, ...]]] = {
    "billing": (
        "I was charged twice for my {product}.",
        "The invoice for the {product} shows the wrong amount.",
        "My card was charged but I never bought a {product}.",
        "The discount is missing on the bill for my {product}.",
        "I need a copy of the invoice for my {product}.",
        "You charged me too much for the {product}.",
    ),
    "shipping": (
        "My {product} has not arrived yet.",
        "The parcel with my {product} went to the wrong address.",
        "The tracking page for my {product} shows nothing.",
        "The {product} was left outside in the rain by the driver.",
        "When will the {product} be delivered?",
        "The box came but the {product} was not in it.",
    ),
    "repair": (
        "My {product} does not turn on.",
        "The {product} keeps getting very hot.",
        "The {product} makes a strange noise.",
        "My {product} stopped working after the update.",
        "The screen of my {product} is broken.",
        "The {product} shuts down by itself.",
    ),
    "returns": (
        "I want to send the {product} back.",
        "I ordered the wrong {product} and want to return it.",
        "How do I get my money back for the {product}?",
        "The {product} is not what I wanted, please take it back.",
        "I changed my mind about the {product}.",
        "Can I swap this {product} for another color?",
    ),
}

URGENCY: Final[dict[str, tuple[str, ...]]] = {
    "high": (
        "I need this fixed today!",
        "This is urgent.",
        "My whole office is waiting.",
        "Please help right now.",
        "I cannot work without it.",
    ),
    "normal": (
        "Please answer this week.",
        "Could you look into it?",
        "Please tell me what to do.",
        "I hope to hear from you soon.",
        "Can you help me with this?",
    ),
    "low": (
        "There is no hurry.",
        "Take your time.",
        "It can wait until next month.",
        "I am only asking.",
        "Answer when you have a free moment.",
    ),
}

OPENINGS: Final = ("Hello.", "Hi there.", "Good morning.", "Dear team,", "Hi, it is me again.", "Hello support.", "")
CLOSINGS: Final = ("Thanks.", "Thank you!", "Regards, {name}.", "{name}", "Yours, {name}.", "")
NAMES: Final = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Ivy", "Jack", "Kate", "Leo")

SYSTEM: Final = (
    "Route the support ticket. Answer with one line and nothing else: team, priority and product.\n"
    f"team: {', '.join(PROBLEMS)}\n"
    f"priority: {', '.join(URGENCY)}\n"
    f"product: {', '.join(PRODUCTS)}\n"
    "Example answer: team=repair priority=low product=camera"
)


@dataclass(frozen=True, slots=True)
class Ticket:
    """One ticket and where it belongs."""

    text: str
    team: str
    priority: str
    product: str

    @property
    def label(self) -> str:
        """The answer that routes it."""
        return f"team={self.team} priority={self.priority} product={self.product}"

    def prompt(self) -> list[dict[str, str]]:
        """Return the messages that ask for the label."""
        return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": self.text}]

    def row(self) -> dict[str, list[dict[str, str]]]:
        """Return the row of a training file."""
        return {"messages": [*self.prompt(), {"role": "assistant", "content": self.label}]}


def make_tickets(seed: int = SEED) -> Sets[Ticket]:
    """Make the three sets; the same seed makes the same sets."""
    randomness = random.Random(seed)
    bodies = [
        (team, priority, product, problem.format(product=product), urgency)
        for team, problems in PROBLEMS.items()
        for problem in problems
        for priority, urgencies in URGENCY.items()
        for urgency in urgencies
        for product in PRODUCTS
    ]
    chosen = randomness.sample(bodies, N_TRAINING + N_VALIDATION + N_HELD_OUT)
    tickets = [_ticket(randomness, *body) for body in chosen]
    return split(tickets, N_TRAINING, N_VALIDATION, N_HELD_OUT)


def right(answer: str, ticket: Ticket) -> bool:
    """Say whether an answer routes the ticket: all three fields, exactly as asked for; blanks around it don't count."""
    return answer.strip() == ticket.label


def _ticket(randomness: random.Random, team: str, priority: str, product: str, problem: str, urgency: str) -> Ticket:
    name = randomness.choice(NAMES)
    sentences = (randomness.choice(OPENINGS), problem, urgency, randomness.choice(CLOSINGS).format(name=name))
    return Ticket(" ".join(sentence for sentence in sentences if sentence), team, priority, product)
