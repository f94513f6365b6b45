"""The packages that graders may import beside the standard library, and which zygote a source is best given to."""

import re
from typing import Final, Literal

#: What a zygote has imported before its calls: little, numpy too, or everything that there is.
Kind = Literal["light", "numpy", "full"]

#: The only image of OpenAI's, and what it holds, by the names to install.
IMAGE_TAG: Final = "2025-05-08"
LIGHT: Final = {"numpy": "2.2.4", "rapidfuzz": "3.10.1"}
FULL: Final = {
    **LIGHT,
    "scipy": "1.15.2",
    "sympy": "1.13.3",
    "pandas": "2.2.3",
    "scikit-learn": "1.6.1",
    "rouge-score": "0.1.2",
    "deepdiff": "8.4.2",
    "jsonschema": "4.23.0",
    "pydantic": "2.10.6",
    "pyyaml": "6.0.2",
    "nltk": "3.9.1",
    "sqlparse": "0.5.3",
    "rdkit": "2024.9.6",
    "scikit-bio": "0.6.3",
    "ast-grep-py": "0.36.2",
}
#: Of which there is no wheel, only a source without anything to compile.
FROM_SOURCE: Final = ("rouge-score",)
#: What the image has of nltk's corpora, with what this nltk splits sentences by, and the folder of them beside the packages.
CORPORA: Final = ("punkt", "punkt_tab", "stopwords", "wordnet", "omw-1.4", "names")
CORPORA_FOLDER: Final = "nltk_data"
#: The name to import, where it is not the name to install.
_IMPORTED_AS: Final = {
    "scikit-learn": "sklearn",
    "rouge-score": "rouge_score",
    "pyyaml": "yaml",
    "scikit-bio": "skbio",
    "ast-grep-py": "ast_grep_py",
}
#: What many graders import. More of it would help those that do, and cost every other call: a fork copies what is there.
_MODULES: Final = (
    "collections", "datetime", "functools", "itertools", "json", "math", "random", "re", "string", "time", "traceback",
    "unicodedata", "rapidfuzz", "rapidfuzz.fuzz", "rapidfuzz.utils", "rapidfuzz.distance",
)  # fmt: skip
_OF_FULL: Final = (
    "scipy.stats", "sympy", "pandas", "sklearn.metrics", "sklearn.feature_extraction.text", "rouge_score.rouge_scorer",
    "deepdiff", "jsonschema", "pydantic", "yaml", "nltk", "sqlparse", "rdkit", "skbio", "ast_grep_py",
)  # fmt: skip
#: What a zygote of each kind imports first; what the environment lacks is passed over.
MODULES: Final[dict[Kind, tuple[str, ...]]] = {
    "light": _MODULES,
    "numpy": (*_MODULES, "numpy"),
    "full": (*_MODULES, "numpy", *_OF_FULL),
}
_IMPORT: Final = re.compile(r"^[ \t]*(?:import|from)[ \t]+([^\n#;]*)", re.MULTILINE)
_NAME: Final = re.compile(r"[A-Za-z_]\w*")


def imported_as(package: str) -> str:
    """Return the name under which a package is imported."""
    return _IMPORTED_AS.get(package, package)


def kind_for(source: str) -> Kind:
    """Return the zygote that has imported what a source seems to import: a hint, wrong ones cost only time."""
    words: set[str] = set()
    for line in _IMPORT.findall(source):
        words.update(_NAME.findall(line))
    if words & {imported_as(package) for package in FULL.keys() - LIGHT.keys()}:
        return "full"
    return "numpy" if "numpy" in words else "light"


def way_out(name: str) -> str:
    """Return what to do about an import that the grader environment lacks."""
    command = "tunesmith grader-env install"
    if name in map(imported_as, LIGHT):
        return f"Install it on the server with `{command}`."
    if name in map(imported_as, FULL):
        return f"Install it on the server with `{command} --full`."
    names = ", ".join(FULL)
    return f"Graders have the standard library and, after `{command} --full`, these packages: {names}."
