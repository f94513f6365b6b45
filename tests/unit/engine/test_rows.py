import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.data.render import Renderer
from tunesmith.data.rows import InvalidRows
from tunesmith.engine.rows import RowFile
from tunesmith.methods.supervised import Supervised


def row(text: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]}


@pytest.fixture
def renderer(base_folder: Callable[[str], Path]) -> Renderer:
    return Renderer.load(base_folder("qwen3"))


def open_rows(path: Path, renderer: Renderer, **knobs: Any) -> RowFile:
    settings: dict[str, Any] = {"max_tokens": 128, "max_line_bytes": 1_000_000} | knobs
    return RowFile(path, method=Supervised(), renderer=renderer, **settings)


def test_rows_come_in_any_order_and_blank_lines_do_not_count(renderer: Renderer, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        "\n".join([json.dumps(row("a", "one")), "  ", json.dumps(row("bé", "two")), "", json.dumps(row("c", "3"))])
    )
    rows = open_rows(path, renderer)
    assert len(rows) == 3
    for index, answer in ((2, "3"), (0, "one"), (1, "two")):
        (document,) = rows[index]
        trained = renderer.decode([document.tokens[i] for i in document.trained])
        assert trained.strip() == answer
    with pytest.raises(IndexError):
        rows[3]


@pytest.mark.parametrize("keep_bytes", [0, 1_000_000])
def test_small_files_are_rendered_once_and_large_ones_each_time(renderer: Renderer, tmp_path: Path, keep_bytes: int) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row("a", "one")) + "\n")
    rows = open_rows(path, renderer, keep_bytes=keep_bytes)
    assert rows[0] == rows[0]
    assert (rows[0] is rows[0]) == bool(keep_bytes)


def test_examples_are_cut_at_the_context(renderer: Renderer, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row("a", "long " * 50)) + "\n")
    (document,) = open_rows(path, renderer, max_tokens=40)[0]
    assert len(document) == 40
    assert len(document.trained) > 0


def test_a_row_that_became_invalid_is_told(renderer: Renderer, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"messages": []}\n')
    with pytest.raises(InvalidRows):
        open_rows(path, renderer)[0]
