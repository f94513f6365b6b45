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
