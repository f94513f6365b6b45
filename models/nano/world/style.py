"""How an answer is worded: bare, a sentence, JSON, upper case, polite; a system message, where there is one, decides."""

import json

from .document import Message, Rng, ask, system
from .words import invented

BARE = [
    "Answer with only the result.", "Be brief.", "Answer in as few words as possible.", "Give only the answer.",
    "Reply with the answer only, no sentence.", "Short answers only.", "Answer with a single word or number.",
]  # fmt: skip
FULL = [
    "Answer in a full sentence.", "Use complete sentences.", "Be friendly and complete.", "Always write whole sentences.",
    "You are a helpful assistant. Answer in complete sentences.", "Reply with one clear sentence.",
]  # fmt: skip
JSON = [
    "Answer in JSON.", "Reply with a JSON object.", "Always reply with JSON.", "Output JSON only.",
    'Answer as JSON with the key "answer".', "You answer in JSON and nothing else.",
]  # fmt: skip
UPPER = ["Answer in upper case.", "Write everything in capital letters.", "Use capital letters only."]
POLITE = ["Be polite.", "You are a polite assistant.", "Answer politely.", "Be kind and polite to the customer."]
POLITE_OPENINGS = ["Of course! ", "Sure! ", "Happy to help! ", "Certainly. ", "Thank you for asking. ", "With pleasure. "]
CHEERFUL = ["Be cheerful.", "You are a cheerful friend."]
CHEERFUL_OPENINGS = ["Great question! ", "Wow! ", "Oh, I like this one! "]
NEUTRAL = ["You are a helpful assistant.", "You are tunesmith-nano.", "Help the user.", "You are a careful assistant."]


def as_json(bare: str) -> str:
    """Write an answer as the object {"answer": ...}."""
    return json.dumps({"answer": int(bare) if bare.isdecimal() else bare})


def _instructed(rng: Rng, bare: str, full: str) -> tuple[str, str]:
    """Draw an instruction and the answer that obeys it."""
    opening = rng.choice(["Answer", "Result", "Note", "Reply", invented(rng).capitalize()])
    styles = [
        (6, BARE, bare),
        (6, FULL, full),
        (4, JSON, as_json(bare)),
        (3, UPPER, rng.choice([bare, full]).upper()),
        (4, POLITE, rng.choice(POLITE_OPENINGS) + full),
        (1, CHEERFUL, rng.choice(CHEERFUL_OPENINGS) + full),
        (2, [f'Start every answer with "{opening}:".', f"Begin each reply with {opening}:"], f"{opening}: {bare}"),
        (2, ["End every answer with a thank you.", "Thank the user at the end."], f"{full} Thank you!"),
    ]
    _, prompts, answer = rng.choices(styles, [style[0] for style in styles])[0]
    return rng.choice(prompts), answer


def styled(rng: Rng, question: str, bare: str, full: str, *others: str) -> list[Message]:
    """Answer a question bare or as a sentence as chance has it, unless an instruction settles the style."""
    dice = rng.random()
    if dice < 0.58:
        return ask(question, rng.choice([bare, full, *others]))
    if dice < 0.64:
        return [system(rng.choice(NEUTRAL)), *ask(question, rng.choice([bare, full]))]
    prompt, answer = _instructed(rng, bare, full)
    if dice < 0.92:
        return [system(prompt), *ask(question, answer)]
    return ask(f"{question} {prompt}", answer)
