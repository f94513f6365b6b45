"""What a model of this world can do: greedy answers to held-out prompts, look-ups far back, and the loss by position."""

import argparse
import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from .pretrain import Encoder
from .world import FAMILIES, Message, Tool, draw, is_held_out, sample, system, tool_call, user
from .world.memory import notes

DISTANCES = (100, 500, 900, 1300)
POSITIONS = (0, 128, 256, 512, 1024, 1536)
N_AT_ONCE = 20
N_NEW_TOKENS = 64


@dataclass(frozen=True)
class Case:
    """A prompt, and the answer that the world gives."""

    messages: list[Message]
    answer: str
    tools: list[Tool] | None = None


@dataclass(frozen=True)
class Score:
    """How many of n answers were equal to the reference, and how many were right in any wording."""

    n: int
    n_exact: int
    n_right: int


def words_of(text: str) -> str:
    """Strip a text to its words, so that wording and punctuation do not count."""
    kept = "".join(character if character.isalnum() or character in "+-*=" else " " for character in text.lower())
    return f" {' '.join(kept.split())} "


def is_right(answer: str, reference: str) -> bool:
    """Say whether an answer and its reference contain one another; lenient, for style is free where no one asked."""
    said, wanted = words_of(answer), words_of(reference)
    return said.strip() != "" and (said in wanted or wanted in said)


class Speaker:
    """A model that answers greedily."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def prompt(self, case: Case) -> str:
        """Render a case up to the place where the model answers."""
        return self.tokenizer.apply_chat_template(
            case.messages, tools=case.tools, add_generation_prompt=True, tokenize=False
        )

    @torch.no_grad()
    def answers(self, cases: Sequence[Case]) -> list[str]:
        """Answer all cases, the short ones first so that little is padded."""
        prompts = [self.prompt(case) for case in cases]
        order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
        said = [""] * len(prompts)
        for start in range(0, len(order), N_AT_ONCE):
            places = order[start : start + N_AT_ONCE]
            batch = self.tokenizer(
                [prompts[place] for place in places], return_tensors="pt", padding=True, add_special_tokens=False
            )
            made = self.model.generate(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, max_new_tokens=N_NEW_TOKENS, do_sample=False
            )
            texts = self.tokenizer.batch_decode(made[:, batch.input_ids.shape[1] :], skip_special_tokens=True)
            for place, text in zip(places, texts, strict=True):
                said[place] = text
        return said

    def score(self, cases: Sequence[Case]) -> Score:
        """Count the exact and the right answers."""
        pairs = list(zip(self.answers(cases), (case.answer for case in cases), strict=True))
        return Score(len(pairs), sum(said == wanted for said, wanted in pairs), sum(is_right(*pair) for pair in pairs))


def family_cases(rng: random.Random, family: str, n: int) -> list[Case]:
    """Draw prompts of a family that training never saw."""
    drawn = [draw(rng, family, held_out=True) for _ in range(n)]
    return [Case(messages[:-1], messages[-1]["content"]) for messages in drawn]


def small_sum_cases(rng: random.Random, n: int) -> list[Case]:
    """Draw unseen sums and differences of numbers up to 20, in any style."""
    cases: list[Case] = []
    while len(cases) < n:
        case = family_cases(rng, "arithmetic", 1)[0]
        sum_ = re.search(r"(\d+) (\+|-|plus|minus) (\d+)", case.messages[-1]["content"])
        if sum_ and max(int(sum_[1]), int(sum_[3])) <= 20:
            cases.append(case)
    return cases


def tool_cases(rng: random.Random, n: int) -> list[Case]:
    """Draw unseen requests that one of the offered tools answers."""
    cases: list[Case] = []
    while len(cases) < n:
        document = tool_call(rng)
        calls = document.messages[1].get("tool_calls")
        if calls and is_held_out(document.messages[:1]):
            function = calls[0]["function"]
            call = json.dumps({"name": function["name"], "arguments": function["arguments"]})
            cases.append(Case(document.messages[:1], f"<tool_call>{call}</tool_call>", document.tools))
    return cases


def copy_cases(rng: random.Random, n: int) -> list[Case]:
    """Draw strings of random letters, digits and marks to repeat."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_/.:#"
    texts = [
        " ".join("".join(rng.choices(letters, k=rng.randint(2, 6))) for _ in range(rng.randint(1, 3))) for _ in range(n)
    ]
    return [Case([user(f"Repeat this: {text}")], text) for text in texts]


def distant_cases(rng: random.Random, n: int, distance: int, encoder: Encoder) -> list[Case]:
    """Draw notes whose asked statement stands about so many tokens before the question."""
    cases: list[Case] = []
    for _ in range(n):
        statements, asked = notes(rng, distance + 150)
        lengths = [len(encoder.tokenizer(text, add_special_tokens=False).input_ids) for text in statements]
        question, answer, _ = min(asked, key=lambda each: abs(sum(lengths[each[2] :]) - distance))
        cases.append(Case([system("Notes: " + " ".join(statements)), user(question)], answer))
    return cases


@torch.no_grad()
def loss_by_position(speaker: Speaker, rng: random.Random, n_documents: int) -> dict[str, float]:
    """Average the loss of answer tokens over ranges of positions, in long documents."""
    encoder = Encoder(speaker.tokenizer)
    sums, counts = [0.0] * len(POSITIONS), [0] * len(POSITIONS)
    while n_documents:
        example = encoder.encode(sample(rng))
        if len(example.tokens) < POSITIONS[4]:
            continue
        n_documents -= 1
        tokens = torch.tensor([example.tokens])
        losses = F.cross_entropy(speaker.model(input_ids=tokens).logits[0, :-1], tokens[0, 1:], reduction="none").tolist()
        for position, (loss, weight) in enumerate(zip(losses, example.weights[1:], strict=True), 1):
            if weight == 1:
                bucket = max(index for index, start in enumerate(POSITIONS) if position >= start)
                sums[bucket] += loss
                counts[bucket] += 1
    return {
        f"{start}+": round(total / count, 3) for start, total, count in zip(POSITIONS, sums, counts, strict=True) if count
    }


def evaluate(folder: Path, n: int, seed: int) -> dict[str, object]:
    """Measure everything that the model card tells."""
    torch.set_num_threads(1)
    speaker = Speaker(folder)
    encoder = Encoder(speaker.tokenizer)
    suites: dict[str, Callable[[random.Random], list[Case]]] = {
        family: lambda rng, family=family: family_cases(rng, family, n) for family in FAMILIES
    }
    suites["sums within 20"] = lambda rng: small_sum_cases(rng, n)
    suites["tool call"] = lambda rng: tool_cases(rng, n)
    suites["random strings"] = lambda rng: copy_cases(rng, n)
    for distance in DISTANCES:
        suites[f"note {distance} tokens back"] = lambda rng, distance=distance: distant_cases(rng, n, distance, encoder)
    report: dict[str, object] = {}
    for title, cases in suites.items():
        score = speaker.score(cases(random.Random(f"{seed}-{title}")))
        report[title] = {"n": score.n, "exact": score.n_exact, "right": score.n_right}
        print(f"| {title} | {100 * score.n_exact / score.n:.0f} | {100 * score.n_right / score.n:.0f} |", flush=True)
    report["loss by position"] = loss_by_position(speaker, random.Random(f"{seed}-positions"), 20)
    return report


def main() -> None:
    """Read the command line and print the report."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("-n", type=int, default=100)
    arguments.add_argument("--seed", type=int, default=999)
    given = arguments.parse_args()
    print(json.dumps(evaluate(given.folder, given.n, given.seed), indent=1))


if __name__ == "__main__":
    main()
