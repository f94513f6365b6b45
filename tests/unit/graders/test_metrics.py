"""Text similarity gives the values of the libraries that it names: 1,000 pairs that were computed without our code."""

import gzip
import json
from pathlib import Path

import pytest

from tunesmith.graders import metrics
from tunesmith.graders.lexicon import Lexicon
from tunesmith.graders.text_similarity import N_MAX_CHARACTERS, N_MAX_METEOR

GOLDEN = Path(__file__).parents[2] / "golden" / "similarity.jsonl.gz"


@pytest.fixture(scope="module")
def golden():
    with gzip.open(GOLDEN, "rt", encoding="utf-8") as file:
        libraries, *pairs = [json.loads(line) for line in file]
    assert set(libraries) == {"rapidfuzz", "sacrebleu", "nltk", "rouge-score", "wordnet"}
    assert len(pairs) == 1000
    return pairs


@pytest.mark.parametrize("metric", sorted(metrics.METRICS))
def test_every_value_is_the_librarys_own(golden, metric):
    far = [
        (text, reference, values[metric])
        for text, reference, values in golden
        if abs(metrics.measure(metric, text, reference) - values[metric]) > 1e-9
    ]
    assert far == []
    assert len({values[metric] for *_, values in golden}) > 100


def test_the_edges_are_those_of_the_libraries():
    assert metrics.measure("fuzzy_match", "", "") == 0.0
    assert metrics.measure("fuzzy_match", "?!", "?!") == 0.0
    assert metrics.measure("fuzzy_match", "Fuzzy Wuzzy!", "fuzzy wuzzy") == 1.0
    assert metrics.measure("rouge_1", "今天天气", "今天天气") == 0.0
    assert metrics.measure("rouge_5", "one two three four", "one two three four") == 0.0
    assert metrics.measure("bleu", "word", "word") == 1.0
    assert metrics.measure("meteor", "a fast car", "a quick car") > metrics.measure("meteor", "a fast car", "a red car")


HOSTILE = (
    "a" * N_MAX_CHARACTERS,
    "a " * (N_MAX_CHARACTERS // 2),
    ". " * (N_MAX_CHARACTERS // 2),
    "\ud800" * 99,
    "\x00" * 999,
)


@pytest.mark.parametrize("metric", sorted(metrics.METRICS))
@pytest.mark.parametrize("text", HOSTILE, ids=["a word", "words", "dots", "half pairs", "nul"])
def test_no_text_within_the_limits_is_too_much(metric, text):
    text = text[:N_MAX_METEOR] if metric == "meteor" else text
    assert 0.0 <= metrics.measure(metric, text, text[:-1] + "b") <= 1.0


@pytest.mark.parametrize(
    ("word", "known"),
    [
        ("dogs", {"dog", "andiron"}), ("Mice", {"mouse", "shiner"}), ("went", {"go", "travel"}),
        ("better", {"good", "improve"}), ("quickly", {"rapidly"}), ("wolves", {"wolf"}), ("qwxyz", set()),
    ],
)  # fmt: skip
def test_synonyms_are_found_through_base_forms(word, known):
    names = {lemma.name() for synset in Lexicon.shipped().synsets(word) for lemma in synset.lemmas()}
    assert known <= names
    assert bool(names) is bool(known)
