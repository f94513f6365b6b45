"""Drawing follows the distribution that temperature and nucleus leave, one generator a row."""

import pytest
import torch

from tunesmith.sampler.choice import Sampling, choose, generator

LOGITS = torch.tensor([0.0, 3.0, 1.0, 2.0, -5.0])


def _drawn(n: int, *, temperature: float = 1.0, top_p: float = 1.0) -> torch.Tensor:
    """Return how often each token is drawn, as fractions."""
    tokens, _ = choose(
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
    tokens, logprobs = choose(LOGITS.repeat(3, 1), [sampling] * 3)
    assert tokens == [1, 1, 1]
    assert logprobs == pytest.approx([torch.log_softmax(LOGITS, 0)[1].item()] * 3)


def test_the_logprob_is_the_models_own_at_any_temperature() -> None:
    tokens, logprobs = choose(LOGITS[None], [Sampling(temperature=2.0, generator=generator(5, 0))])
    assert logprobs[0] == pytest.approx(torch.log_softmax(LOGITS, 0)[tokens[0]].item())


def test_rows_of_every_kind_in_one_batch_draw_as_each_alone() -> None:
    kinds = [(0.0, 1.0), (1.0, 1.0), (1.0, 0.7), (0.3, 1.0), (2.0, 0.95)]
    logits = torch.randn(5, 50, generator=torch.Generator().manual_seed(1))
    together, _ = choose(logits, [Sampling(t, p, generator(i, 2)) for i, (t, p) in enumerate(kinds)])
    alone = [choose(logits[i : i + 1], [Sampling(t, p, generator(i, 2))])[0][0] for i, (t, p) in enumerate(kinds)]
    assert together == alone


def test_a_token_without_weight_is_never_drawn() -> None:
    logits = torch.full((200, 30), float("-inf"))
    logits[:, 7] = 0.0
    tokens, _ = choose(logits, [Sampling(generator=generator(seed, 1)) for seed in range(200)])
    assert set(tokens) == {7}


def test_seeds_and_samples_have_generators_of_their_own() -> None:
    draws = {torch.rand(1, generator=generator(seed, index)).item() for seed in range(-2, 3) for index in range(4)}
    assert len(draws) == 20
