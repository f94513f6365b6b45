import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.lm.head import Head, n_rows, token_logp


def reference(hidden: torch.Tensor, head: Head, targets: torch.Tensor) -> torch.Tensor:
    logits = (hidden @ head.weight_VC.t() + (0 if head.bias_V is None else head.bias_V)) * head.scale
    if head.softcap is not None:
        logits = torch.tanh(logits / head.softcap) * head.softcap
    return torch.log_softmax(logits.double(), -1).gather(1, targets[:, None])[:, 0].float()


@settings(max_examples=25)
@given(
    n=st.integers(1, 40),
    vocabulary=st.integers(3, 60),
    chunk_bytes=st.integers(1, 8000),
    scale=st.sampled_from([1.0, 0.25]),
    softcap=st.sampled_from([None, 2.0]),
    biased=st.booleans(),
)
def test_log_probabilities_and_gradients_are_those_of_the_definition(
    n: int, vocabulary: int, chunk_bytes: int, scale: float, softcap: float | None, biased: bool
) -> None:
    generator = torch.Generator().manual_seed(n * 100 + vocabulary)
    weight = torch.randn(vocabulary, 6, generator=generator)
    bias = torch.randn(vocabulary, generator=generator) if biased else None
    head = Head(weight, bias, scale, softcap)
    hidden = torch.randn(n, 6, generator=generator)
    targets = torch.randint(vocabulary, (n,), generator=generator)
    slopes = torch.randn(n, generator=generator)

    ours_in, theirs_in = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    ours, correct = token_logp(ours_in, head, targets, chunk_bytes=chunk_bytes)
    theirs = reference(theirs_in, head, targets)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert correct.tolist() == (head.logits(hidden).argmax(-1) == targets).tolist()

    (ours * slopes).sum().backward()
    (theirs * slopes).sum().backward()
    torch.testing.assert_close(ours_in.grad, theirs_in.grad, rtol=1e-4, atol=1e-5)


def test_chunks_bound_the_memory_of_a_large_vocabulary() -> None:
    assert n_rows(151_936) * 151_936 * 4 <= 32 * 1024 * 1024
    assert n_rows(10_000_000) == 16
    head = Head(torch.randn(5000, 4, generator=torch.Generator().manual_seed(0)))
    hidden = torch.randn(100, 4, generator=torch.Generator().manual_seed(1))
    targets = torch.arange(100)
    whole, _ = token_logp(hidden, head, targets)
    in_chunks, _ = token_logp(hidden, head, targets, chunk_bytes=17 * 5000 * 4)
    torch.testing.assert_close(whole, in_chunks, rtol=1e-6, atol=1e-6)


def test_nothing_is_kept_without_a_gradient() -> None:
    head = Head(torch.randn(7, 3, generator=torch.Generator().manual_seed(0)))
    logp, _ = token_logp(torch.ones(2, 3), head, torch.tensor([1, 2]))
    assert not logp.requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_sums_are_fp32_whatever_the_weights_are(dtype: torch.dtype) -> None:
    head = Head(torch.randn(50, 8, generator=torch.Generator().manual_seed(0)).to(dtype))
    hidden = torch.randn(4, 8, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
    logp, _ = token_logp(hidden, head, torch.arange(4))
    assert logp.dtype == torch.float32
    logp.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.dtype == dtype
