import itertools
from collections.abc import Callable

import torch
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.render import Example
from tunesmith.engine.batch import join, micro_batches, pack
from tunesmith.engine.document import Document
from tunesmith.lm.lora import Span


def example(tokens: tuple[int, ...], weights: tuple[float, ...]) -> Document:
    return Document.of(Example(tokens, weights, truncated=False))


def test_a_token_is_predicted_from_the_one_before_it() -> None:
    micro = pack([example((5, 6, 7), (0, 1, 0)), example((8, 9), (0, 1))])
    assert micro.tokens_T.tolist() == [5, 6, 7, 8, 9]
    assert micro.positions_T.tolist() == [0, 1, 2, 0, 1]
    assert micro.lengths == (3, 2)
    assert micro.asked_N.tolist() == [0, 3]
    assert micro.targets_N.tolist() == [6, 9]
    assert micro.n_tokens == 5


def test_weights_are_kept_and_the_first_token_is_never_trained() -> None:
    micro = pack([example((5, 6, 7), (1, 0.5, 0))])
    assert micro.asked_N.tolist() == [0]
    assert micro.weights_N.tolist() == [0.5]


def test_documents_without_a_trained_token_are_left_out() -> None:
    silent = example((1, 2, 3), (0, 0, 0))
    assert list(micro_batches([silent], token_budget=100)) == []
    (micro,) = micro_batches([silent, example((1, 2), (0, 1)), silent], token_budget=100)
    assert micro.lengths == (2,)


@given(lengths=st.lists(st.integers(2, 30), max_size=20), budget=st.integers(1, 60))
def test_rows_keep_the_order_and_the_budget(lengths: list[int], budget: int) -> None:
    documents = [example(tuple(range(i, i + n)), (0.0,) + (1.0,) * (n - 1)) for i, n in enumerate(lengths)]
    micros = list(micro_batches(documents, token_budget=budget))
    assert [length for micro in micros for length in micro.lengths] == lengths
    assert all(micro.n_tokens <= budget or len(micro.lengths) == 1 for micro in micros)
    # no two neighbours would have fitted one row
    assert all(one.n_tokens + other.lengths[0] > budget for one, other in itertools.pairwise(micros))


def test_jobs_side_by_side_keep_their_own_tokens(document: Callable[..., Document]) -> None:
    one, other = pack([document(5, range(2, 5), 1)]), pack([document(4, range(1, 4), 2), document(3, range(2, 3), 3)])
    joined = join([(7, one), (2, other)])
    packed = joined.packed
    assert packed.spans == (Span(7, 0, 5), Span(2, 5, 12))
    assert packed.lengths == (5, 4, 3)
    assert joined.n_trained == (3, 4)
    assert torch.equal(packed.tokens_T[packed.asked_N + 1], packed.targets_N)
