# pyright: basic
"""What the model says of a prompt's own tokens, for requests that ask for it.

Shapes: T tokens of the packed row, M positions of a chunk, C hidden size, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tunesmith.domain.ports import PROMPT
from tunesmith.lm.head import Head, n_rows
from tunesmith.sampler.cache import Segment
from tunesmith.sampler.choice import likeliest
from tunesmith.sampler.request import Intake, Token


def tell_prompts(head: Head, hidden_TC: Tensor, intakes: Sequence[Intake], segments: Sequence[Segment]) -> None:
    """Hand out the tokens that follow those of the segments in their prompts, once for all samples of a request."""
    place = 0
    for intake, segment in zip(intakes, segments, strict=True):
        request = intake.request
        following = request.prompt[segment.start + 1 : segment.start + segment.n_tokens + 1]
        if request.prompt_logprobs and intake.first == 0 and following:
            request.emit(_tokens(head, hidden_TC[place : place + len(following)], following, request.top_logprobs))
        place += segment.n_tokens


def _tokens(head: Head, hidden_TC: Tensor, following: list[int], n_top: int) -> list[Token]:
    told: list[Token] = []
    n_chunk = n_rows(head.weight_VC.shape[0])
    for start in range(0, len(following), n_chunk):
        tokens = following[start : start + n_chunk]
        logp_MV = torch.log_softmax(head.logits(hidden_TC[start : start + len(tokens)]), -1)
        logp_M = logp_MV.gather(1, torch.tensor(tokens, device=logp_MV.device)[:, None])[:, 0]
        tops = likeliest(logp_MV, [n_top] * len(tokens))
        for token, logprob, top in zip(tokens, logp_M.tolist(), tops, strict=True):
            told.append(Token(PROMPT, token, logprob, top=top))
    return told
