"""Graders that nobody would write: whatever comes, `validate` and `run` answer 200 or 400, soon, in OpenAI's shape."""

import copy
import json
import os
import random
import time
from typing import Any

import httpx2
import pytest

#: Grader bodies that one run makes; more by `TUNESMITH_FUZZED`.
N = int(os.environ.get("TUNESMITH_FUZZED", "1000"))
LONGEST_S = 20.0

CHECK: Any = {
    "type": "string_check", "name": "a", "input": "{{ sample.output_text }}", "reference": "{{ item.x }}", "operation": "eq"
}  # fmt: skip
NEAR: Any = {
    "type": "text_similarity", "name": "b", "input": "{{ sample.output_json.y[0] }}", "reference": "{{item['x']}}",
    "evaluation_metric": "bleu", "pass_threshold": 0.5,
}  # fmt: skip
PYTHON: Any = {"type": "python", "name": "p", "source": "def grade(sample, item): return 1.0", "image_tag": "2025-05-08"}
MESSAGE: Any = {"role": "user", "content": [{"type": "input_text", "text": "{{ item.x }}"}, "and"]}
IMAGE: Any = {"role": "user", "content": {"type": "input_image", "image_url": "{{ item.x }}", "detail": "low"}}
SCORE: Any = {
    "type": "score_model",
    "name": "s",
    "model": "judge",
    "input": [MESSAGE, IMAGE],
    "range": [0, 1],
    "sampling_params": {"max_completions_tokens": 9, "reasoning_effort": "low", "temperature": 1, "seed": 1, "top_p": 1},
}
LABEL: Any = {
    "type": "label_model", "name": "l", "model": "judge", "input": [MESSAGE], "labels": ["good", "bad"],
    "passing_labels": ["good"],
}  # fmt: skip
MULTI: Any = {
    "type": "multi", "name": "m", "graders": {"a": CHECK, "b": NEAR}, "calculate_output": "min(a, b) + 2 ^ -a / (b - 0.5)"
}  # fmt: skip
SEEDS = (CHECK, NEAR, PYTHON, SCORE, LABEL, MULTI)
TEXTS = (
    "", " ", "{{", "}}", "{{}}", "{{ item }}", "{{ item.x.y[9] }}", "{{ sample }}", "{{ sample.choices }}",
    "{{ item.__class__ }}", "{{ '{{' }}", "%s{0}", "a" * 3000, "\x00", "\u202e", "🦜" * 50, "a+b", "a^^b", "((((a))))",
    "1e999", "a/0", "log(0)", "exp(a)(b)", "a" + "+a" * 1500, "(" * 500, "-" * 500 + "a", "2^" * 200 + "2", "none", "eq",
    "ilike", "meteor", "rouge_l", "cosine", "blind", "tunesmith-nano", "http://127.0.0.1/", "data:image/png;base64,AAAA",
    "multi", "user", "true", "1", "NaN", "\n\t'\"\\", "min",
    "__import__('os')", "ﬀ", "İ", "ß",
)  # fmt: skip
OTHERS = (
    None, True, False, 0, 1, -1, 2**63, 10**400, 1e308, 1.5, [], {}, [[]], [{}], {"type": "x"}, ["a", "b"], [1, 0],
    [0, 1, 2],
)  # fmt: skip


@pytest.fixture(scope="module")
def served(judging: Any) -> Any:
    """A server with judges, so that graders that ask one are more than refused."""
    return judging


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of everything in a tree."""
    inside: Any = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path] + [place for key, value in inside for place in places(value, (*path, key))]


def mutated(chance: random.Random, tree: Any) -> Any:
    """Return a tree with something changed: a value replaced, removed, doubled under another name, or made a grader."""
    tree = copy.deepcopy(tree)
    path = chance.choice(places(tree))
    value = chance.choice((chance.choice(TEXTS), chance.choice(OTHERS), chance.choice(SEEDS)))
    if not path:
        return value
    place = tree
    for key in path[:-1]:
        place = place[key]
    match chance.randrange(4):
        case 0:
            del place[path[-1]]
        case 1 if isinstance(place, dict):
            place[chance.choice(TEXTS)] = copy.deepcopy(place[path[-1]])
        case 2 if isinstance(place, list):
            place.append(value)
        case _:
            place[path[-1]] = value
    return tree


def test_no_grader_makes_the_server_fail_or_hang(http: httpx2.Client) -> None:
    chance = random.Random(4)
    statuses = {200: 0, 400: 0}
    for number in range(N):
        grader = chance.choice(SEEDS)
        for _ in range(chance.randrange(4)):
            grader = mutated(chance, grader)
        body: Any = {"grader": grader}
        verb = "validate" if number % 2 else "run"
        if verb == "run":
            body |= {
                "model_sample": chance.choice((*TEXTS, '{"y": ["z"]}')),
                "item": {"x": chance.choice((*TEXTS, *OTHERS))},
            }
        text = json.dumps(body)
        began = time.monotonic()
        answer = http.post(
            f"/v1/fine_tuning/alpha/graders/{verb}", content=text.encode(), headers={"content-type": "application/json"}
        )
        assert time.monotonic() - began < LONGEST_S, text
        assert answer.status_code in statuses, (text, answer.text)
        statuses[answer.status_code] += 1
        told = answer.json()
        if answer.status_code == 400:
            assert set(told["error"]) == {"message", "type", "param", "code"}, text
        elif verb == "run":
            assert isinstance(told["reward"], int | float), text
    assert min(statuses.values()) > N // 20, statuses
