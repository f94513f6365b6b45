"""Attention by a CPU's kernels in bf16, forward and back, beside autograd in fp32, at short and long lengths."""

import pytest
import torch
import torch.nn.functional as F

from tunesmith.lm import cpu_attention
from tunesmith.lm.attention import Piece
from tunesmith.lm.cpu_attention import attend, attend_back

N_QUERIES, N_KEYS, SIZE, SCALE = 4, 2, 16, 0.25


def exact(heads: list[torch.Tensor], grad_THD: torch.Tensor, piece: Piece) -> list[torch.Tensor]:
    """Return outputs and slopes of one document or tree, from a mask that is written out."""
    stem, *branches = (piece,) if isinstance(piece, int) else piece
    owner_T = torch.cat([torch.full((n,), i) for i, n in enumerate([stem, *branches])])
    seen_TT = torch.ones(len(owner_T), len(owner_T), dtype=torch.bool).tril()
    seen_TT &= (owner_T[:, None] == owner_T[None]) | (owner_T[None] == 0)
    inputs = [each.float().requires_grad_() for each in heads]
    q, k, v = (each.transpose(0, 1)[None] for each in inputs)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen_TT, scale=SCALE, enable_gqa=True)[0].transpose(0, 1)
    out.backward(grad_THD.float())
    return [out.detach(), *(each.grad for each in inputs if each.grad is not None)]


@pytest.mark.parametrize(
    ("lengths", "asked"),
    [
        ((100, 300), [*range(70, 100), 350, 390]),  # the end of one, two tokens of the other
        ((100, 300, 80), [399, 479]),  # none of the first, the last of what follows
        (((200, 90, 130), 60), [*range(250, 290), 419]),  # branches without their stem
        (((200, 90, 130), (60, 5)), [199, 419]),  # the end of a stem, one of two branches, no second tree
    ],
)
def test_only_what_is_asked_for_is_computed_and_is_the_same(lengths: tuple[Piece, ...], asked: list[int]) -> None:
    n_pieces = [piece if isinstance(piece, int) else sum(piece) for piece in lengths]
    generator = torch.Generator().manual_seed(1)
    heads = [torch.randn(sum(n_pieces), n, SIZE, generator=generator) for n in (N_QUERIES, N_KEYS, N_KEYS)]
    asked_N = torch.tensor(asked)
    grad = torch.zeros_like(heads[0]).index_copy_(0, asked_N, torch.randn(len(asked), N_QUERIES, SIZE, generator=generator))
    starts = [sum(n_pieces[:i]) for i in range(len(lengths))]
    expected = [
        exact([each[start : start + n] for each in heads], grad[start : start + n], piece)
        for start, n, piece in zip(starts, n_pieces, lengths, strict=True)
    ]
    out, kept = attend(heads[0], heads[1], heads[2], lengths, SCALE, asked_N)
    slopes = tuple(torch.zeros_like(each) for each in heads)
    attend_back(grad, (heads[0], heads[1], heads[2]), kept, SCALE, slopes)
    whole = [torch.cat(parts) for parts in zip(*expected, strict=True)]
    torch.testing.assert_close(out[asked_N], whole[0][asked_N])
    torch.testing.assert_close(list(slopes), whole[1:])
    assert sum(each.out_1HLD.shape[2] for each in kept) < sum(n_pieces) / 2, "queries are computed that nobody asks for"


@pytest.mark.parametrize("piece", [100, 300, 720, (200, 90, 130)])
def test_outputs_and_slopes_are_those_of_fp32(piece: Piece, monkeypatch: pytest.MonkeyPatch) -> None:
    n = piece if isinstance(piece, int) else sum(piece)
    generator = torch.Generator().manual_seed(1)
    shapes = [(n, N_QUERIES, SIZE), (n, N_KEYS, SIZE), (n, N_KEYS, SIZE), (n, N_QUERIES, SIZE)]
    q, k, v, grad = (torch.randn(shape, generator=generator).bfloat16() for shape in shapes)
    expected = exact([q, k, v], grad, piece)

    def distances() -> list[float]:
        out, kept = attend(q, k, v, (piece,), SCALE)
        slopes = tuple(torch.zeros_like(each) for each in (q, k, v))
        attend_back(grad, (q, k, v), kept, SCALE, slopes)
        pairs = zip((out, *slopes), expected, strict=True)
        return [float((one.float() - other).norm() / other.norm()) for one, other in pairs]

    found = distances()
    assert max(found) < 1e-2
    if piece == 300:
        monkeypatch.setattr(cpu_attention, "_N_EXACT_BACK", 0)
        assert sum(found) < sum(distances()), "on the way back fp32 is nearer than bf16"
