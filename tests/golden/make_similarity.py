"""Make the golden vectors of text similarity: `python make_similarity.py WORDNET OUT.jsonl.gz`, with 3.0's `dict` folder.

Every value comes from the library itself, none from our code: METEOR from nltk's reader of the whole database, ROUGE-L from
rouge-score's own.
"""

import gzip
import json
import random
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nltk
import sacrebleu
from nltk.corpus.reader.wordnet import WordNetCorpusReader
from nltk.translate.gleu_score import sentence_gleu
from nltk.translate.meteor_score import single_meteor_score
from rapidfuzz import fuzz, utils
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

N = 1000
LIBRARIES = ("rapidfuzz", "sacrebleu", "nltk", "rouge-score")
ROUGE = [f"rouge{n}" for n in (1, 2, 3, 4, 5)] + ["rougeL"]
PLAIN = (
    "the cat sat on the mat", "A quick brown fox jumps over the lazy dog.", "The answer is 42.", "It costs $3.50, not 4!",
    "def grade(sample, item):\n    return 1.0", "He didn't go; she'd gone already.", "state-of-the-art U.S. results",
    "Children were running better than mice", "e = mc^2 & a < b", "well-known wolves' knives",
)  # fmt: skip
FOREIGN = (
    "今天天气很好", "机器学习 是 什么", "Straße und Äpfel", "naïve café déjà vu", "Москва — столица", "🦜🦜 parrots 🦜",
    "ﬁne ﬂow", "İstanbul'da", "नमस्ते दुनिया", "مرحبا بالعالم",
)  # fmt: skip
BARE = ("", " ", ".", "...", "!?", "\n\t", "a", "A", "42", "-", "''", "the")


def opened(folder: Path, into: Path) -> WordNetCorpusReader:
    """Return nltk's reader of the database, with the list of lexicographers' files that it asks for."""
    place = into / "corpora" / "wordnet"
    shutil.copytree(folder, place)
    (place / "lexnames").write_text("".join(f"{number:02d}\tfile.{number}\t1\n" for number in range(45)))
    nltk.data.path.insert(0, str(into))
    return WordNetCorpusReader(nltk.data.find("corpora/wordnet"), None)


def paraphrased(chance: random.Random, words: list[str], wordnet: WordNetCorpusReader) -> list[str]:
    """Return words with some of them replaced by synonyms, left out, doubled, swapped or bent."""
    out: list[str] = []
    for word in words:
        match chance.randrange(8):
            case 0:
                continue
            case 1:
                names = [lemma.name() for synset in wordnet.synsets(word) for lemma in synset.lemmas()]
                out.append(chance.choice(names).replace("_", " ") if names else word)
            case 2:
                out.append(word + chance.choice(("s", "es", "ed", "ing", "er", "est", "ly", "'s", ",")))
            case 3:
                out.insert(chance.randrange(len(out) + 1), word)
            case 4:
                out.append(word.upper() if chance.random() < 0.5 else word.capitalize())
            case _:
                out.append(word)
    return out


def pairs(chance: random.Random, wordnet: WordNetCorpusReader) -> list[tuple[str, str]]:
    """Return pairs of text and reference: bare, foreign, short, paraphrased, long."""
    lemmas = [lemma for lemma in wordnet.all_lemma_names() if "_" not in lemma]
    texts = (*PLAIN, *FOREIGN, *BARE)
    made = [(left, right) for left in BARE for right in BARE]
    made += [(text, text) for text in texts]
    made += [(text, text.upper()) for text in texts]
    made += [(chance.choice(texts), chance.choice(texts)) for _ in range(150)]
    while len(made) < N:
        n_words = chance.choice((1, 2, 3, 5, 8, 13, 20, 20, 40, 100)) if len(made) < N - 8 else 1000
        words = chance.choice((chance.sample(lemmas, n_words), " ".join(chance.choices(PLAIN, k=n_words)).split()[:n_words]))
        made.append((" ".join(paraphrased(chance, words, wordnet)), " ".join(words)))
    return made


def values(text: str, reference: str, wordnet: WordNetCorpusReader) -> dict[str, float]:
    """Return every metric of a pair."""
    words = Tokenizer13a()
    left, right = words(reference).split(), words(text).split()
    rouge = RougeScorer(ROUGE, use_stemmer=False).score(reference, text)
    return {
        "fuzzy_match": fuzz.WRatio(text, reference, processor=utils.default_process) / 100,
        "bleu": sacrebleu.sentence_bleu(text, [reference]).score / 100,
        "gleu": sentence_gleu([left], right),
        "meteor": float(single_meteor_score(left, right, wordnet=wordnet)),
        **{name.replace("rouge", "rouge_").lower(): rouge[name].fmeasure for name in ROUGE},
    }


def main(folder: Path, out: Path) -> None:
    """Write a line that names the libraries, then a line for each pair."""
    with tempfile.TemporaryDirectory() as name:
        wordnet = opened(folder, Path(name))
        lines: list[Any] = [{library: version(library) for library in LIBRARIES} | {"wordnet": "3.0"}]
        lines += [[*pair, values(*pair, wordnet)] for pair in pairs(random.Random(16), wordnet)]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    out.write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
