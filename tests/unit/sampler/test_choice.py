"""Drawing follows the distribution that temperature and nucleus leave, one generator a row."""

import pytest
import torch

from tunesmith.sampler import choice
from tunesmith.sampler.choice import Leaning, Sampling, choose, generator

LOGITS = torch.tensor([0.0, 3.0, 1.0, 2.0, -5.0])


def _drawn(n: int, *, temperature: float = 1.0, top_p: float = 1.0) -> torch.Tensor:
    """Return how often each token is drawn, as fractions."""
    tokens, _, _ = choose(
        LOGITS.repeat(n, 1), [Sampling(temperature, top_p, generator(seed, 0)) for seed in range(n)]
    )  # fmt: skip
    return torch.bincount(torch.tensor(tokens), minlength=5) / n


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_are_the_softmax(temperature: float) -> None:
    expected = torch.softmax(LOGITS / temperature, 0)
    assert torch.allclose(_drawn(4000, temperature=temperature), expected, atol=0.03)


def test_a_nucleus_cuts_the_tail_and_keeps_the_ratios() -> None:
    p = torch.softmax(LOGITS, 0)
    drawn = _drawn(4000, top_p=0.8)
    kept = torch.tensor([0.0, p[1].item(), 0.0, p[3].item(), 0.0])
    assert torch.allclose(drawn, kept / kept.sum(), atol=0.03)
    assert drawn[[0, 2, 4]].sum() == 0


@pytest.mark.parametrize("sampling", [Sampling(temperature=0.0), Sampling(top_p=0.0), Sampling(temperature=1e-30)])
def test_no_freedom_is_the_best_token(sampling: Sampling) -> None:
    tokens, logprobs, _ = choose(LOGITS.repeat(3, 1), [sampling] * 3)
    assert tokens == [1, 1, 1]
    assert logprobs == pytest.approx([torch.log_softmax(LOGITS, 0)[1].item()] * 3)


def test_the_logprob_is_the_models_own_at_any_temperature() -> None:
    tokens, logprobs, _ = choose(LOGITS[None], [Sampling(temperature=2.0, generator=generator(5, 0))])
    assert logprobs[0] == pytest.approx(torch.log_softmax(LOGITS, 0)[tokens[0]].item())


def test_rows_of_every_kind_in_one_batch_draw_as_each_alone() -> None:
    kinds = [(0.0, 1.0), (1.0, 1.0), (1.0, 0.7), (0.3, 1.0), (2.0, 0.95)]
    logits = torch.randn(5, 50, generator=torch.Generator().manual_seed(1))
    together, _, _ = choose(logits, [Sampling(t, p, generator(i, 2)) for i, (t, p) in enumerate(kinds)])
    alone = [choose(logits[i : i + 1], [Sampling(t, p, generator(i, 2))])[0][0] for i, (t, p) in enumerate(kinds)]
    assert together == alone


def test_a_large_vocabulary_is_drawn_from_as_token_by_token(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = 3 * torch.randn(40, 5001, generator=torch.Generator().manual_seed(1))
    logits[::2, 100:4900] = float("-inf")
    by_blocks = choose(logits, [Sampling(generator=generator(seed, 3)) for seed in range(40)])
    monkeypatch.setattr(choice, "_N_MANY", logits.numel())
    one_by_one = choose(logits, [Sampling(generator=generator(seed, 3)) for seed in range(40)])
    assert by_blocks == one_by_one
    assert len(set(by_blocks[0])) > 10


def test_a_token_without_weight_is_never_drawn() -> None:
    logits = torch.full((200, 30), float("-inf"))
    logits[:, 7] = 0.0
    tokens, _, _ = choose(logits, [Sampling(generator=generator(seed, 1)) for seed in range(200)])
    assert set(tokens) == {7}


def test_seeds_and_samples_have_generators_of_their_own() -> None:
    draws = {torch.rand(1, generator=generator(seed, index)).item() for seed in range(-2, 3) for index in range(4)}
    assert len(draws) == 20


def test_the_likeliest_are_told_to_those_who_ask_best_first() -> None:
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(2))
    _, _, tops = choose(logits, [Sampling(n_top=n, temperature=0.0) for n in (0, 3, 60)])
    own = torch.log_softmax(logits, -1)
    assert tops[0] == ()
    assert [token for token, _ in tops[1]] == own[1].argsort(descending=True)[:3].tolist()
    assert [logprob for _, logprob in tops[2]] == pytest.approx(own[2].sort(descending=True).values.tolist())


def test_a_bias_shifts_the_odds_and_not_what_is_told() -> None:
    own = torch.log_softmax(LOGITS, 0)
    expected = torch.softmax(LOGITS + torch.tensor([0.0, -2.0, 0.0, 1.0, 0.0]), 0)
    leaning = {1: -2.0, 3: 1.0}
    samplings = [Sampling(generator=generator(seed, 0), leaning=Leaning(leaning), n_top=5) for seed in range(4000)]
    logits = LOGITS.repeat(4000, 1)
    tokens, logprobs, tops = choose(logits, samplings)
    assert torch.allclose(torch.bincount(torch.tensor(tokens), minlength=5) / 4000, expected, atol=0.03)
    assert logprobs == pytest.approx(own[tokens].tolist())
    assert dict(tops[0]) == pytest.approx(dict(enumerate(own.tolist())))
    assert torch.equal(logits, LOGITS.repeat(4000, 1))


@pytest.mark.parametrize("warmth", [0.0, 1.0, 2.0])
def test_100_selects_and_minus_100_bans(warmth: float) -> None:
    def drawn(leaning: dict[int, float]) -> set[int]:
        rows = [Sampling(warmth, generator=generator(seed, 0), leaning=Leaning(leaning)) for seed in range(200)]
        return set(choose(LOGITS.repeat(200, 1), rows)[0])

    assert drawn({4: 100.0}) == {4}
    assert 1 not in drawn({1: -100.0})


def test_a_banned_token_is_taken_where_a_grammar_leaves_nothing_else() -> None:
    allowed = torch.tensor([[True, True, False, False, False], [True, False, False, False, False]])
    rows = [Sampling(0.0, leaning=Leaning({0: -100.0, 4: 100.0})) for _ in range(2)]
    assert choose(LOGITS.repeat(2, 1), rows, allowed)[0] == [1, 0]


def test_penalties_are_the_published_formula() -> None:
    logits = torch.tensor([[2.0, 1.9, 1.0, 0.0]])
    presence, frequency = 0.371, 0.2337
    row = Sampling(0.0, leaning=Leaning({3: 0.5}, presence=presence, frequency=frequency))
    counts = torch.zeros(4)
    for _ in range(30):
        mu = logits[0] + torch.tensor([0.0, 0.0, 0.0, 0.5]) - counts * frequency - (counts > 0).float() * presence
        (token,), (logprob,), _ = choose(logits, [row])
        assert token == mu.argmax().item()
        assert logprob == pytest.approx(torch.log_softmax(logits[0], 0)[token].item())
        counts[token] += 1
    assert counts.min() > 0


def test_a_row_that_leans_changes_nothing_for_its_neighbours() -> None:
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(1))
    plain = [Sampling(generator=generator(i, 0)) for i in range(4)]
    alone, _, _ = choose(logits, plain)
    leant = [Sampling(generator=generator(i, 0), leaning=Leaning({7: 100.0}) if i == 2 else None) for i in range(4)]
    together, _, _ = choose(logits, leant)
    assert together == [*alone[:2], 7, alone[3]]
