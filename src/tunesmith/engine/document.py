# pyright: basic
"""One sequence to train on in a compact form, or several that begin alike, as a stem and its branches.

A branch begins with the last token that all have in common, so that each trained token is predicted inside its own branch.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.lm.attention import Piece

if TYPE_CHECKING:
    from tunesmith.data.render import Example


@dataclass(frozen=True, slots=True)
class Document:
    """Token ids, and which of them are trained with what weight."""

    #: Longs: a plain sequence, or the stem and after it each branch.
    tokens: array
    #: One for a plain sequence; of a tree the stem's and the branches'.
    lengths: tuple[int, ...]
    #: Indices of the trained tokens (never a sequence's first: nothing predicts it) and their weights.
    trained: array
    weights: array
    #: How many of the trained tokens each branch has (a plain sequence is one branch).
    n_trained: tuple[int, ...]
    #: Log-probability of each trained token when it was sampled; None for what was written by somebody else.
    before: array | None = None
    #: What the reference says of each branch: the sum of the log-probabilities of its trained tokens.
    reference: tuple[float, ...] | None = None

    @classmethod
    def of(cls, *examples: "Example") -> "Document":
        """Compress an example, or several into a tree; tokens of weight 0 are context and are not scored at all."""
        documents = [cls._plain(example) for example in examples]
        return documents[0] if len(documents) == 1 else tree(documents, n_common(documents))

    @classmethod
    def _plain(cls, example: "Example") -> "Document":
        trained = array("l", [i for i, weight in enumerate(example.weights) if weight and i])
        weights = array("f", [example.weights[i] for i in trained])
        return cls(array("l", example.tokens), (len(example.tokens),), trained, weights, (len(trained),))

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def n_counted(self) -> int:
        """Tokens of all sequences, those of a stem once for each branch."""
        stem, *branches = self.lengths
        return stem * max(1, len(branches)) + sum(branches)

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """What attention is told of it."""
        if len(self.lengths) == 1 or not self.lengths[0]:
            return tuple(length for length in self.lengths if length)
        return (self.lengths,)

    def positions(self) -> Iterator[int]:
        """Yield the place of each token in its sequence."""
        stem, *branches = self.lengths
        yield from range(stem)
        for length in branches:
            yield from range(stem, stem + length)


def n_common(documents: Sequence[Document]) -> int:
    """Return with how many tokens plain documents begin alike, short of the token that predicts the first trained one."""
    first, *others = documents
    most = min(document.trained[0] - 1 if document.trained else len(document) - 1 for document in documents)
    for other in others:
        if first.tokens[:most] == other.tokens[:most]:
            continue
        low = 0
        while most - low > 1:
            middle = (low + most) // 2
            low, most = (middle, most) if first.tokens[low:middle] == other.tokens[low:middle] else (low, middle)
        most = low
    return max(0, most)


def tree(documents: Sequence[Document], n_stem: int) -> Document:
    """Return plain documents that begin with the same `n_stem` tokens as one tree."""
    tokens, trained, weights = documents[0].tokens[:n_stem], array("l"), array("f")
    before: array[float] = array("f")
    lengths = [n_stem]
    for document in documents:
        shift = len(tokens) - n_stem
        tokens.extend(document.tokens[n_stem:])
        trained.extend(shift + i for i in document.trained)
        weights.extend(document.weights)
        before.extend(document.before or ())
        lengths.append(len(document) - n_stem)
    n_trained = tuple(n for document in documents for n in document.n_trained)
    return Document(tokens, tuple(lengths), trained, weights, n_trained, before or None)
