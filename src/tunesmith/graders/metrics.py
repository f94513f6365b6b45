"""The metrics of `text_similarity`, each by the library that is named, with its choices; all of them 0 to 1.

Words are those of sacrebleu's 13a tokenizer for BLEU, GLEU and METEOR, of rouge-score's (lower case, a-z and 0-9) for ROUGE.
"""

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, Final

import sacrebleu
from nltk.translate.gleu_score import sentence_gleu
from nltk.translate.meteor_score import single_meteor_score
from rapidfuzz import fuzz, utils
from rapidfuzz.distance import LCSseq
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenize import tokenize
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from tunesmith.graders.lexicon import Lexicon


def measure(metric: str, text: str, reference: str) -> float:
    """Return how near a text is to its reference by a metric."""
    return min(1.0, max(0.0, METRICS[metric](text, reference)))


def fuzzy_match(text: str, reference: str) -> float:
    """Return rapidfuzz's weighted ratio of the texts in lower case, without what is no letter or digit."""
    return fuzz.WRatio(text, reference, processor=utils.default_process) / 100


def bleu(text: str, reference: str) -> float:
    """Return the BLEU of a sentence (Papineni et al. 2002), exponentially smoothed, of the orders that it has."""
    return sacrebleu.sentence_bleu(text, [reference]).score / 100


def gleu(text: str, reference: str) -> float:
    """Return Google's BLEU of a sentence (Wu et al. 2016): the lesser of precision and recall of its 1- to 4-grams."""
    return sentence_gleu([_words(reference)], _words(text))


def meteor(text: str, reference: str) -> float:
    """Return METEOR (Banerjee and Lavie 2005): words that are equal, of one stem, or synonyms in WordNet; in their order."""
    lexicon: Any = Lexicon.shipped()  # it is asked for nothing but `synsets`
    return single_meteor_score(_words(reference), _words(text), wordnet=lexicon)


def rouge_n(text: str, reference: str, *, n: int) -> float:
    """Return the F-measure of common n-grams (Lin 2004)."""
    kind = f"rouge{n}"
    return _rouge(kind).score(reference, text)[kind].fmeasure


def rouge_l(text: str, reference: str) -> float:
    """Return the F-measure of the longest common subsequence of words (Lin 2004)."""
    left, right = tokenize(reference, None), tokenize(text, None)
    common = LCSseq.similarity(left, right)
    if not common:
        return 0.0
    precision, recall = common / len(right), common / len(left)
    return 2 * precision * recall / (precision + recall)


@cache
def _rouge(kind: str) -> RougeScorer:
    return RougeScorer([kind])


@cache
def _tokenizer() -> Tokenizer13a:
    return Tokenizer13a()


def _words(text: str) -> list[str]:
    return _tokenizer()(text).split()


METRICS: Final[Mapping[str, Callable[[str, str], float]]] = {
    "fuzzy_match": fuzzy_match,
    "bleu": bleu,
    "gleu": gleu,
    "meteor": meteor,
    "rouge_l": rouge_l,
    **{f"rouge_{n}": partial(rouge_n, n=n) for n in range(1, 6)},
}
