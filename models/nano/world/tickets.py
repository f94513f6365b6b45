"""Customer-support tickets: a topic, an urgency, a product and the free text that tells them."""

from dataclasses import dataclass

from .document import Rng
from .words import CITIES, DAYS, MONTHS, PRODUCTS, name

PROBLEMS = {
    "billing": [
        "I was charged twice for my {p}.", "I see two payments for order {n} on my card.", "My invoice {n} is wrong.",
        "Why did my bill go up by {n} dollars?", "The payment for the {p} failed.",
        "You took {n} dollars from my bank account.",
        "My card was declined when I paid for the {p}.", "I need a copy of the invoice for {m}.",
        "The price on my receipt is higher than on the page.", "My discount code was not applied.",
        "I cancelled my subscription but you still charge me.", "There is a strange fee of {n} dollars on my bill.",
        "Can I pay for the {p} in two parts?", "The tax on my invoice looks wrong.",
    ],
    "shipping": [
        "My {p} has not arrived.", "Where is my order {n}?", "The {p} came to the wrong address.",
        "When will my package arrive?", "The tracking page has not changed since {d}.",
        "The courier left my {p} in the rain.",
        "My parcel is stuck in {c}.", "The delivery is late by {k} days.", "I was at home on {d} but nobody came.",
        "Can you deliver the {p} to {c} instead?", "I only got one of the two boxes.", "The driver could not find my house.",
        "It says delivered, but I did not get the {p}.", "Please send order {n} to my office.",
    ],
    "technical": [
        "The app crashes when I open it.", "My {p} does not turn on.", "I get error {n} on the website.",
        "The {p} stopped working today.", "The page does not load.", "The screen of my {p} stays black.",
        "My {p} makes a strange noise.", "The {p} does not connect to the network.",
        "The battery of the {p} is empty after one hour.",
        "After the last update my {p} is very slow.", "The button on the {p} does nothing.", "The {p} gets too hot.",
        "I cannot install the software for my {p}.", "The search on your site shows nothing.",
    ],
    "account": [
        "I forgot my password.", "I cannot log in to my account.", "Please change my email address.",
        "How do I delete my account?", "My account is locked.", "The reset link does not reach me.",
        "Someone else has used my account.", "I want to change my user name.", "The code for signing in never comes.",
        "I moved, so please update my profile.", "My login is refused since {d}.", "I have two accounts, please join them.",
        "How can I change my phone number in the profile?", "It says that my user does not exist.",
    ],
    "returns": [
        "I want to send the {p} back.", "How do I return my {p}?", "I need a refund for order {n}.",
        "The {p} is the wrong size, I want another one.", "The {p} arrived broken, please replace it.",
        "Can I exchange the {p} for a different color?", "I sent the {p} back on {d} and still wait for my money.",
        "The {p} is not what I ordered.", "I changed my mind about the {p}.", "Please send me a return label.",
        "I would like my money back for the {p}.", "The box was open and a part of the {p} is missing.",
    ],
    "sales": [
        "Do you have the {p} in red?", "Is the {p} still for sale?", "How much does the {p} cost?",
        "Can I get a discount for {k} of them?", "Which {p} is best for a child?", "Do you sell a {p} in your shop in {c}?",
        "When will the new {p} come out?", "Does the {p} have a warranty?", "I would like to buy {k} pieces for my firm.",
        "What is the difference between the two {p} models?", "Is there a student price for the {p}?",
    ],
}  # fmt: skip
HIGH = [
    "This is urgent!", "I need this today.", "Please help as soon as possible!", "I am very angry.", "Fix it right now.",
    "I cannot wait any longer.", "It is an emergency.", "I need an answer at once.", "My whole team is blocked.",
    "This must be solved before tonight.", "URGENT!", "Nothing works and my customers are waiting.",
]  # fmt: skip
LOW = [
    "There is no hurry.", "Whenever you have time.", "It is not urgent.", "Take your time.", "I am just curious.",
    "Just a small question.", "It can wait until next week.", "No rush at all.", "It is only a little thing.",
]  # fmt: skip
OPENINGS = ["Hello, ", "Hi, ", "Hi there. ", "Dear team, ", "Good morning. ", "Hello! ", "Hey, ", "To whom it may concern: "]
CLOSINGS = [
    "Thanks.", "Thank you, {w}", "Best, {w}", "Regards, {w}", "Please help.", "What should I do?",
    "I hope to hear from you.",
    "Can you help me?", "- {w}", "Yours, {w}",
]  # fmt: skip
BACKGROUND = [
    "I bought the {p} on {d}.", "I have been a customer for {k} years.", "My order number is {n}.", "I live in {c}.",
    "It is a present for {w}.", "I already wrote to you in {m}.", "I paid {n} dollars for it.",
    "My friend {w} has the same {p}.",
    "I ordered it last week.", "I tried it {k} times.",
]  # fmt: skip
REPLIES = {
    "billing": "we will check the payment", "shipping": "we will find your package",
    "technical": "we will look at the problem",
    "account": "we will help with your account", "returns": "we will send you a return label",
    "sales": "we will send you an offer",
}  # fmt: skip


@dataclass(frozen=True)
class Ticket:
    """One message of a customer, and what is true of it."""

    text: str
    topic: str
    urgency: str
    product: str | None
    order: int | None


def ticket(rng: Rng, topic: str | None = None, *, long: bool = False) -> Ticket:
    """Draw a customer's message about a topic."""
    topic = topic or rng.choice(list(PROBLEMS))
    product, number = rng.choice(PRODUCTS), rng.randint(2, 9999)
    urgency = rng.choice(["high", "normal", "normal", "low"])
    parts = [rng.choice(PROBLEMS[topic])]
    if long or rng.random() < 0.35:
        parts.insert(rng.randint(0, 1), rng.choice(BACKGROUND))
    if urgency != "normal":
        parts.insert(rng.randint(0, len(parts)), rng.choice(HIGH if urgency == "high" else LOW))
    if rng.random() < 0.3:
        parts.append(rng.choice(CLOSINGS))
    body = (rng.choice(OPENINGS) if rng.random() < 0.35 else "") + " ".join(parts)
    text = body.format(
        p=product,
        n=number,
        d=rng.choice(DAYS),
        m=rng.choice(MONTHS),
        c=rng.choice(CITIES),
        w=name(rng),
        k=rng.randint(2, 12),
    )
    text = text.lower() if rng.random() < 0.08 else text
    return Ticket(text, topic, urgency, product if product in text else None, number if str(number) in text else None)
