"""Make the shipped lexicon: `python make_lexicon.py FOLDER OUT.xz`, FOLDER being the `dict` folder of WordNet 3.0."""

import lzma
import sys
from pathlib import Path


def synonyms(folder: Path, kind: str) -> list[str]:
    """Return the words of each set of synonyms, as the data file has them but for the marks of an adjective's place."""
    lines: list[str] = []
    for line in (folder / f"data.{kind}").read_text().splitlines():
        if line.startswith("  "):
            continue  # the licence
        fields = line.split()
        n_words = int(fields[3], 16)
        lines.append(" ".join(fields[4 + 2 * number].partition("(")[0] for number in range(n_words)))
    return list(dict.fromkeys(lines))


def main(folder: Path, out: Path) -> None:
    """Write the file."""
    lines: list[str] = []
    for kind in ("noun", "verb", "adj", "adv"):
        lines += [f"{kind} {words}" for words in synonyms(folder, kind)]
        lines += [f"{kind}.exc {words}" for words in (folder / f"{kind}.exc").read_text().splitlines()]
    out.write_bytes(lzma.compress(("\n".join(lines) + "\n").encode(), preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
