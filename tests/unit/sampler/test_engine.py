"""The slot engine against transformers' own generation, and against itself alone."""

import hashlib
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tunesmith.sampler import waiting
from tunesmith.sampler.adapters import Adapters
from tunesmith.sampler.engine import PromptTooLong
from tunesmith.sampler.request import Request, Token

N_VOCAB = 97
FAMILIES = ("llama", "qwen3", "gemma2", "gemma3_text")


def theirs(model: Any, prompt: list[int], n: int) -> tuple[list[int], torch.Tensor]:
    """Return transformers' greedy continuation and the log-probabilities it was chosen from."""
    output = model.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), max_new_tokens=n,
        do_sample=False, eos_token_id=None, pad_token_id=0, output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    return output.sequences[0, len(prompt) :].tolist(), torch.log_softmax(torch.cat(output.logits).float(), -1)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_and_logprobs_are_those_of_transformers(
    family: str, make_engine: Callable[..., Any], make_prompts: Callable[..., Any], reference: Callable[..., Any]
) -> None:
    bench, model = make_engine(family), reference(family)
    asked = make_prompts(6)
    answers = [bench.ask(prompt, max_tokens=15, temperature=0.0)[1] for prompt in asked]
    for prompt, answer in zip(asked, answers, strict=True):
        tokens, logp_TV = theirs(model, prompt, 15)
        sampled = answer.tokens()[0]
        assert [token.token for token in sampled] == tokens
        expected = [logp_TV[step, token].item() for step, token in enumerate(tokens)]
        assert [token.logprob for token in sampled] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_answers_as_peft_has_it(
    family: str,
    make_engine: Callable[..., Any],
    make_adapter: Callable[..., Any],
    make_prompts: Callable[..., Any],
    reference: Callable[..., Any],
) -> None:
    from peft import PeftModel

    adapter = make_adapter(family, 1)
    bench = make_engine(family)
    model = PeftModel.from_pretrained(reference(family), adapter[1]).eval()
    for prompt in make_prompts(3):
        assert bench.greedy(prompt, adapter=adapter) == theirs(model, prompt, 12)[0]


def test_adapters_and_the_bare_base_in_one_batch_answer_as_each_alone(
    make_engine: Callable[..., Any], make_adapter: Callable[..., Any], make_prompts: Callable[..., Any]
) -> None:
    adapters = [None, make_adapter("llama", 1), make_adapter("llama", 2)]
    bench = make_engine("llama")
    asked = make_prompts(9)
    alone = [bench.greedy(prompt, adapter=adapters[i % 3]) for i, prompt in enumerate(asked)]
    together = [
        bench.ask(prompt, max_tokens=12, temperature=0.0, adapter=adapters[i % 3])[1] for i, prompt in enumerate(asked)
    ]
    assert [said.ids() for said in together] == alone
    same_prompt = [bench.greedy(asked[0], adapter=adapter) for adapter in adapters]
    assert len({tuple(ids) for ids in same_prompt}) == 3


def test_a_seed_gives_the_same_tokens_whatever_else_is_in_the_batch(
    make_engine: Callable[..., Any], make_prompts: Callable[..., Any]
) -> None:
    bench = make_engine("qwen3")
    wishes: dict[str, Any] = {
        "max_tokens": 20, "temperature": 1.1, "top_p": 0.9, "seed": 42, "n": 3,
        "frequency_penalty": 1.0, "presence_penalty": -0.5, "logit_bias": {5: 3.0, 9: -100.0},
    }  # fmt: skip
    first, *others = make_prompts(8)
    alone = [[token.token for token in sample] for sample in bench.ask(first, **wishes)[1].tokens(3)]
    for i, prompt in enumerate(others):
        bench.ask(prompt, max_tokens=5 * i + 1, temperature=0.7, seed=i, presence_penalty=0.1 * i, top_logprobs=i)
    crowded = [[token.token for token in sample] for sample in bench.ask(first, **wishes)[1].tokens(3)]
    assert crowded == alone
    assert len({tuple(sample) for sample in alone}) == 3
    other_seed = bench.ask(first, **{**wishes, "seed": 43})[1].tokens(3)
    assert [[token.token for token in sample] for sample in other_seed] != alone


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("portion", [4096, 7])
def test_a_prompts_own_tokens_are_told_as_transformers_scores_them(
    family: str,
    portion: int,
    make_engine: Callable[..., Any],
    make_prompts: Callable[..., Any],
    reference: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "N_MAX_PROMPT_TOKENS", portion)
    bench, model = make_engine(family), reference(family)
    asked = make_prompts(4)
    wishes: dict[str, Any] = {"temperature": 0.0, "n": 2, "top_logprobs": 3, "prompt_logprobs": True}
    answers = [bench.ask(prompt, max_tokens=i, **wishes)[1] for i, prompt in enumerate(asked)]
    for i, (prompt, answer) in enumerate(zip(asked, answers, strict=True)):
        told = answer.tokens(2)
        assert [len(sample) for sample in told[:2]] == [max(i, 1)] * 2
        assert [token.token for token in told[-1]] == prompt[1:]
        logp_TV = torch.log_softmax(model(torch.tensor([prompt])).logits[0].float(), -1)
        assert [token.logprob for token in told[-1]] == pytest.approx(
            [logp_TV[at, token].item() for at, token in enumerate(prompt[1:])], abs=1e-4
        )
        best = logp_TV[:-1].topk(3, -1)
        assert [[each for each, _ in token.top] for token in told[-1]] == best.indices.tolist()


def test_a_text_of_the_whole_context_can_be_scored(make_engine: Callable[..., Any]) -> None:
    bench = make_engine()
    prompt = [5] * 128
    said = bench.ask(prompt, max_tokens=0, prompt_logprobs=True)[1]
    assert len(said.tokens(1)[-1]) == 127
    with pytest.raises(PromptTooLong):
        bench.ask(prompt, max_tokens=1)


def test_without_a_seed_answers_differ(make_engine: Callable[..., Any]) -> None:
    bench = make_engine()
    answers = {tuple(bench.ask([5, 6, 7], max_tokens=20, temperature=2.0)[1].ids()) for _ in range(4)}
    assert len(answers) > 1


def test_the_seeds_of_requests_without_one_come_from_the_given_randomness(make_engine: Callable[..., Any]) -> None:
    benches = [make_engine(randomness=random.Random(source)) for source in (1, 1, 2)]
    answers = [bench.ask([5, 6, 7], max_tokens=20, temperature=1.0)[1].ids() for bench in benches]
    assert answers[0] == answers[1] != answers[2]


def test_an_answer_ends_with_a_stop_id_or_at_its_length(make_engine: Callable[..., Any]) -> None:
    bench = make_engine()
    whole = bench.greedy([5, 6, 7], max_tokens=10)
    stop = whole[4]
    ended = bench.ask([5, 6, 7], max_tokens=10, temperature=0.0, stop_ids=frozenset({stop}))[1].tokens()[0]
    assert [token.token for token in ended] == whole[: whole.index(stop) + 1]
    assert [token.finish for token in ended][-1] == "stop"
    cut = bench.ask([5, 6, 7], max_tokens=3, temperature=0.0)[1].tokens()[0]
    assert [token.finish for token in cut] == [None, None, "length"]


def test_more_samples_than_rows_are_taken_in_portions(
    make_engine: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "N_MAX_ROWS", 4)
    bench = make_engine()
    wishes: dict[str, Any] = {"n": 11, "max_tokens": 6, "temperature": 1.0, "seed": 3}
    few = [[token.token for token in sample] for sample in bench.ask([9, 8, 7], **wishes)[1].tokens(11)]
    monkeypatch.setattr(waiting, "N_MAX_ROWS", 64)
    many = [[token.token for token in sample] for sample in bench.ask([9, 8, 7], **wishes)[1].tokens(11)]
    assert few == many
    assert bench.engine.status()["rows"] == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_long_prompt_is_computed_in_parts_beside_rows_under_way(
    family: str, make_engine: Callable[..., Any], make_prompts: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = make_prompts(6, shortest=8, longest=50)
    bench = make_engine(family)
    whole = [bench.ask(prompt, max_tokens=8, temperature=0.0, n=2)[1].tokens(2) for prompt in asked]
    n_steps = bench.engine.status()["steps"]
    monkeypatch.setattr(waiting, "N_MAX_PROMPT_TOKENS", 7)
    at_once = [bench.ask(prompt, max_tokens=8, temperature=0.0, n=2)[1] for prompt in asked]
    for expected, said in zip(whole, at_once, strict=True):
        for one, other in zip(expected, said.tokens(2), strict=True):
            assert [token.token for token in one] == [token.token for token in other]
            assert [token.logprob for token in one] == pytest.approx([token.logprob for token in other], abs=1e-4)
    assert bench.engine.status()["steps"] - n_steps >= sum(len(prompt) // 7 for prompt in asked)


def test_more_adapters_at_once_than_stay_resident_answer_as_each_alone(
    make_engine: Callable[..., Any], make_adapter: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = [make_adapter("llama", seed) for seed in (1, 2, 3)]
    bench = make_engine()
    expected = [bench.greedy([5, 6, 7], adapter=adapter) for adapter in tuned]
    narrow = make_engine()
    narrow.engine.adapters = Adapters(narrow.lora, n_max=1)
    monkeypatch.setenv("TUNESMITH_FAILPOINTS", "sampler.step=sleep:0.1")
    waits = narrow.ask([1], max_tokens=3)[1]  # while it is moved on, the others come together
    waits.news.get(timeout=60)
    at_once = [narrow.ask([5, 6, 7], max_tokens=12, temperature=0.0, adapter=adapter)[1] for adapter in tuned]
    monkeypatch.delenv("TUNESMITH_FAILPOINTS")
    assert [answer.ids() for answer in at_once] == expected


def test_a_forgotten_adapter_leaves_an_idle_engine(
    make_engine: Callable[..., Any], make_adapter: Callable[..., Any]
) -> None:
    bench = make_engine()
    bench.greedy([5], max_tokens=1, adapter=make_adapter("llama", 1))
    bench.engine.forget("llama-1")
    deadline = time.monotonic() + 30
    while bench.lora.route.slots and time.monotonic() < deadline:
        time.sleep(0.01)
    assert bench.lora.route.slots == {}


def test_a_small_cache_makes_requests_wait_and_changes_no_answer(
    make_engine: Callable[..., Any], make_prompts: Callable[..., Any]
) -> None:
    asked = make_prompts(12)
    roomy = make_engine()
    expected = [roomy.greedy(prompt, max_tokens=20) for prompt in asked]
    position_bytes = 3 * 2 * 2 * 8 * 4
    tight = make_engine(cache_bytes=2 * 60 * position_bytes)
    answers = [tight.ask(prompt, max_tokens=20, temperature=0.0)[1] for prompt in asked]
    assert [answer.ids() for answer in answers] == expected
    assert tight.engine.status()["cache_bytes"] <= 2 * 60 * position_bytes


def test_what_can_never_fit_is_refused(make_engine: Callable[..., Any]) -> None:
    bench = make_engine(cache_bytes=40 * 3 * 2 * 2 * 8 * 4)
    with pytest.raises(PromptTooLong, match="do not fit the context of 128"):
        bench.ask([5] * 100, max_tokens=29)
    with pytest.raises(PromptTooLong, match=r"100 prompt tokens and 28 more need 49\.2 kB"):
        bench.ask([5] * 100, max_tokens=28)
    with pytest.raises(PromptTooLong):
        bench.ask([], max_tokens=1)
    assert len(bench.greedy([5] * 20, max_tokens=10)) == 10


def test_a_cancelled_request_frees_its_slot_and_its_neighbours_go_on(make_engine: Callable[..., Any]) -> None:
    bench = make_engine()
    expected = bench.greedy([5, 6, 7], max_tokens=100)
    left, said = bench.ask([8, 9], max_tokens=100, temperature=0.0)
    _, stays = bench.ask([5, 6, 7], max_tokens=100, temperature=0.0)
    said.news.get(timeout=60)
    left.cancelled.set()
    assert stays.ids() == expected
    deadline = time.monotonic() + 30
    while bench.engine.status()["rows"] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert bench.engine.status()["rows"] == 0
    n_told = sum(len(said.news.get_nowait()) for _ in range(said.news.qsize()))
    assert n_told < 99


def test_a_bad_adapter_is_one_error_and_nothing_else(
    make_engine: Callable[..., Any], make_adapter: Callable[..., Any], tmp_path: Path
) -> None:
    name, folder, sha256 = make_adapter("llama", 1)
    bench = make_engine("llama")
    expected = bench.greedy([5, 6, 7])
    cut = make_adapter("llama", 2)
    weights = (cut[1] / "adapter_model.safetensors").read_bytes()[:1000]
    (cut[1] / "adapter_model.safetensors").write_bytes(weights)
    bad_ones = (
        (name, folder, "0" * 64),
        ("gone", tmp_path / "gone", sha256),
        ("cut", cut[1], hashlib.sha256(weights).hexdigest()),
    )
    for bad in bad_ones:
        _, broken = bench.ask([5, 6, 7], max_tokens=5, adapter=bad, n=3)
        _, fine = bench.ask([5, 6, 7], max_tokens=12, temperature=0.0)
        with pytest.raises(ValueError, match=r"sha256 differs|holds no adapter|not hold an adapter that can be read"):
            broken.tokens(3)
        assert fine.ids() == expected
    (folder / "adapter_config.json").write_text("{}")
    _, broken = bench.ask([5, 6, 7], max_tokens=5, adapter=(name, folder, sha256))
    with pytest.raises(ValueError, match="adapter"):
        broken.tokens()


def test_a_pass_that_fails_is_told_to_everyone_in_it_and_the_engine_goes_on(
    make_engine: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_engine()
    expected = bench.greedy([5, 6, 7])
    monkeypatch.setenv("TUNESMITH_FAILPOINTS", "sampler.step=raise")
    _, said = bench.ask([5, 6, 7], max_tokens=12, n=2)
    with pytest.raises(OSError, match="No space left"):
        said.tokens(2)
    monkeypatch.delenv("TUNESMITH_FAILPOINTS")
    assert bench.greedy([5, 6, 7]) == expected


def test_a_prompt_that_cannot_be_computed_fails_alone(
    make_engine: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_engine()
    expected = [bench.greedy(prompt, max_tokens=20) for prompt in ([5, 6, 7], [8, 9])]
    monkeypatch.setenv("TUNESMITH_FAILPOINTS", "sampler.step=sleep:0.1")
    under_way = bench.ask([5, 6, 7], max_tokens=20, temperature=0.0)[1]
    first = under_way.news.get(timeout=60)
    beyond_the_vocabulary = [5, N_VOCAB + 3]
    newcomers = [
        bench.ask(prompt, max_tokens=20, temperature=0.0, n=2)[1] for prompt in ([8, 9], beyond_the_vocabulary, [8, 9])
    ]
    monkeypatch.delenv("TUNESMITH_FAILPOINTS")
    with pytest.raises(IndexError):
        newcomers[1].tokens(2)
    assert [token.token for token in (*first, *under_way.tokens()[0])] == expected[0]
    for said in (newcomers[0], newcomers[2]):
        assert [[token.token for token in sample] for sample in said.tokens(2)] == [expected[1]] * 2
    assert bench.greedy([8, 9], max_tokens=20) == expected[1]


def test_tokens_come_one_by_one(make_engine: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make_engine()
    monkeypatch.setenv("TUNESMITH_FAILPOINTS", "sampler.step=sleep:0.05")
    began = time.monotonic()
    _, said = bench.ask([5, 6, 7], max_tokens=11, temperature=0.0)
    first = said.news.get(timeout=60)
    assert isinstance(first, list)
    assert isinstance(first[0], Token)
    first_s = time.monotonic() - began
    said.tokens()
    assert time.monotonic() - began > first_s + 0.3


def test_the_death_of_the_engines_thread_is_told(make_engine: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make_engine()
    told = threading.Event()
    bench.engine.stop()
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    again = type(bench.engine)(bench.base, bench.lora, context_length=64)
    monkeypatch.setattr(again, "_turn", lambda: 1 / 0)
    monkeypatch.setattr(again, "_recover", lambda _: [][0])
    again.start(on_death=told.set)
    again.submit(Request([1], lambda _: None))
    assert told.wait(60)
