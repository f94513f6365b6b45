"""WordNet 3.0 as far as METEOR asks it: which words are synonyms of a word, through its base forms.

The file beside the package's licence of WordNet holds, by part of speech, a line for each set of synonyms and one for each
irregular form. Answers are those of nltk's reader, which wants the whole database on the disk.
"""

import lzma
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Final, Self

#: Endings that regular forms change, by part of speech (WordNet's morphy).
_ENDINGS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "noun": (
        ("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man"),
        ("ies", "y"),
    ),
    "verb": (
        ("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", ""),
    ),
    "adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "adv": (),
}  # fmt: skip


class Lemma(str):
    """A word of a set of synonyms."""

    __slots__ = ()

    def name(self) -> str:
        """Return the word, its parts joined by underscores."""
        return str(self)


class Synset(tuple[Lemma, ...]):
    """A set of synonyms."""

    __slots__ = ()

    def lemmas(self) -> Self:
        """Return its words."""
        return self


class Lexicon:
    """Sets of synonyms by word, for each part of speech."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._synsets: dict[str, dict[str, list[Synset]]] = {}
        self._irregular: dict[str, dict[str, list[str]]] = {}
        lemmas: dict[str, Lemma] = {}
        for line in lines:
            kind, *words = line.split()
            if kind.endswith(".exc"):
                self._irregular.setdefault(kind.removesuffix(".exc"), {})[words[0]] = words[1:]
            else:
                synset = Synset(lemmas.setdefault(word, Lemma(word)) for word in words)
                of_kind = self._synsets.setdefault(kind, {})
                for word in {word.lower() for word in words}:
                    of_kind.setdefault(word, []).append(synset)

    @classmethod
    @cache
    def shipped(cls) -> Self:
        """Return the lexicon that comes with the package; reading it takes a second, once."""
        text = lzma.decompress(files("tunesmith.graders").joinpath("wordnet/synonyms.xz").read_bytes())
        return cls(text.decode().splitlines())

    def synsets(self, word: str) -> list[Synset]:
        """Return every set of synonyms that a base form of the word is in."""
        word = word.lower()
        return [
            synset
            for kind, known in self._synsets.items()
            for form in self._base_forms(word, kind, known)
            for synset in known[form]
        ]

    def _base_forms(self, word: str, kind: str, known: Mapping[str, object]) -> list[str]:
        """Return the word and its base forms, those that are known; regular ones by one change of its ending."""
        forms = self._irregular.get(kind, {}).get(word)
        if forms is None:
            forms = [word.removesuffix(ending) + base for ending, base in _ENDINGS[kind] if word.endswith(ending)]
        return [form for form in dict.fromkeys([word, *forms]) if form in known]
