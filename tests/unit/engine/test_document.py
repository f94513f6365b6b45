"""Documents that begin alike, as one tree: what is computed is the same as without it."""

import random
from array import array
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.render import Example
from tunesmith.engine.batch import micro_batches, pack
from tunesmith.engine.document import Document, n_common, tree
from tunesmith.engine.optim import Optimizer
from tunesmith.engine.step import Tuning, forward_backward
from tunesmith.lm.load import Base
from tunesmith.lm.lora import Adapter, LoraModel
from tunesmith.methods.supervised import Supervised

MakeBase = Callable[..., Base]


def example(tokens: list[int], first: int, weight: float = 1.0) -> Example:
    """A sequence that is trained from token `first` on."""
    return Example(tuple(tokens), tuple(weight * (i >= first) for i in range(len(tokens))), truncated=False)


def chats(n: int, n_stem: int, seed: int = 1) -> list[Document]:
    """Sequences with the same begin, of several lengths, trained behind it."""
    chance = random.Random(seed)
    stem = [chance.randrange(64) for _ in range(n_stem)]
    made: list[Document] = []
    for _ in range(n):
        rest = [chance.randrange(64) for _ in range(chance.randint(4, 14))]
        made.append(Document.of(example(stem + rest, n_stem + chance.randint(1, 3))))
    return made


def gradients(base: Base, documents: list[list[Document]]) -> tuple[float, list[torch.Tensor]]:
    """Return loss and gradients of documents, each list of them a row."""
    lora = LoraModel(base.model)
    adapter: Adapter = lora.fresh(seed=3)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for pair in adapter.pairs.values():
            pair.b_OR.normal_(0, 0.1, generator=generator)
    lora.place(0, adapter)
    tuning = Tuning(0, Supervised(), adapter, Optimizer(adapter.parameters(), total_steps=1, peak=0.0))
    for row in documents:
        forward_backward(base, lora, [(tuning, pack(row))])
    return tuning.tally.means("")["loss"], [p.grad for p in adapter.parameters() if p.grad is not None]


def test_a_tree_has_its_stem_once_and_its_branches_after_it() -> None:
    one = Document.of(example([1, 2, 3, 4, 5], 3))
    other = Document.of(example([1, 2, 3, 7], 3))
    whole = tree([one, other], 2)
    assert list(whole.tokens) == [1, 2, 3, 4, 5, 3, 7]
    assert whole.lengths == (2, 3, 2)
    assert whole.pieces == ((2, 3, 2),)
    assert list(whole.positions()) == [0, 1, 2, 3, 4, 2, 3]
    assert [whole.tokens[i] for i in whole.trained] == [4, 5, 7]
    assert whole.n_trained == (2, 1)
    assert whole.n_counted == 9
    assert len(whole) == 7


def test_a_pair_without_anything_in_common_is_two_sequences() -> None:
    pair = Document.of(example([1, 2, 3], 1), example([4, 5], 1))
    assert pair.pieces == (3, 2)
    assert list(pair.positions()) == [0, 1, 2, 0, 1]
    assert pair.n_trained == (2, 1)


@given(st.lists(st.lists(st.integers(0, 1), min_size=2, max_size=40), min_size=2, max_size=4))
def test_the_common_begin_is_as_long_as_it_can_be(rows: list[list[int]]) -> None:
    documents = [Document.of(example(row, len(row) - 1)) for row in rows]
    most = min(len(row) - 2 for row in rows)
    expected = next((i for i in range(most) if len({row[i] for row in rows}) > 1), most)
    assert n_common(documents) == expected


@pytest.mark.parametrize("window", [None, 9])
def test_a_tree_gives_the_gradients_of_its_sequences(make_base: MakeBase, window: int | None) -> None:
    def base() -> Base:
        made = make_base()
        for layer in made.decoder.layers:  # type: ignore[union-attr]  # a transformers model
            layer.self_attn.sliding_window = window
        return made

    documents = chats(4, 20)
    loss, apart = gradients(base(), [documents])
    shared_loss, shared = gradients(base(), [[tree(documents, 20)]])
    assert shared_loss == pytest.approx(loss, rel=1e-6)
    off = sum(float((a - b).square().sum()) for a, b in zip(apart, shared, strict=True)) ** 0.5
    assert off <= 1e-5 * sum(float(a.square().sum()) for a in apart) ** 0.5


def test_documents_that_begin_alike_share_a_row_and_a_stem() -> None:
    alike, others = chats(3, 40), chats(2, 5, seed=2)
    (micro,) = micro_batches([alike[0], others[0], *alike[1:], others[1]], token_budget=10_000)
    assert [piece[0] for piece in micro.lengths if isinstance(piece, tuple)] == [40]
    assert micro.n_tokens == sum(map(len, [*alike, *others])) - 2 * 40
    assert sum(micro.n_trained) == sum(len(document.trained) for document in [*alike, *others])


def test_a_tree_over_the_budget_is_cut_into_several() -> None:
    documents = chats(8, 40)
    budget = 40 + 30
    micros = list(micro_batches(documents, token_budget=budget))
    assert len(micros) > 1
    assert all(micro.n_tokens <= budget for micro in micros)
    assert sum(sum(micro.n_trained) for micro in micros) == sum(len(document.trained) for document in documents)


def test_a_short_common_begin_is_not_worth_a_tree() -> None:
    chance = random.Random(4)
    documents = [Document.of(example([*range(17), *(chance.randrange(64) for _ in range(300))], 200)) for _ in range(2)]
    (micro,) = micro_batches(documents, token_budget=10_000)
    assert micro.lengths == (317, 317)


def test_what_was_sampled_and_the_reference_go_along() -> None:
    sampled = [replace(document, before=array("f", [0.5] * len(document.trained))) for document in chats(3, 40)]
    (micro,) = micro_batches(sampled, token_budget=10_000)
    assert micro.before_N is not None
    assert len(micro.before_N) == len(micro.targets_N)
    (micro,) = micro_batches([replace(document, reference=(-3.0,)) for document in chats(3, 5)], token_budget=10_000)
    assert micro.reference_B is not None
    assert micro.reference_B.tolist() == [-3.0] * 3
