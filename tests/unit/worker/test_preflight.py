"""What the dry run of a validation tells of real files, and what it makes of those that take too long."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.blobs.local import LocalBlobs
from tunesmith.domain.tasks import DryRunSpec, ValidateSpec
from tunesmith.worker.preflight import look


class Ticking:
    def __init__(self, step_s: float) -> None:
        self._step_s, self._at = step_s, 0.0

    def now(self) -> float:
        return self.monotonic()

    def monotonic(self) -> float:
        self._at += self._step_s
        return self._at


def row(user: str, assistant: str = "cd") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]}


@pytest.fixture
def dry(byte_base: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def run(*files: list[Any], tick_s: float = 0.0, deleted: bool = False, **changed: Any) -> dict[str, Any]:
        blobs = LocalBlobs(tmp_path / "blobs")
        for number, rows in enumerate(files):
            blobs.put(f"files/{number}", [(json.dumps(item) + "\n").encode() for item in rows])
        if deleted:
            blobs.delete("files/0")
        names = {"training_file": "file-t", "training_key": "files/0", "validation_file": None, "validation_key": None}
        if len(files) > 1:
            names |= {"validation_file": "file-v", "validation_key": "files/1"}
        spec = ValidateSpec(
            **{
                "method": "supervised",
                "method_config": {"hyperparameters": {}},
                "base_path": str(byte_base),
                "context_length": 64,
                "blobs": blobs.url,
                "max_line_bytes": 1_000_000,
                **names,
                **changed,
            }
        )
        return look(DryRunSpec(spec, seconds=10.0, n_errors=3, parent=0), blobs, Ticking(tick_s))

    return run


def test_a_file_that_takes_too_long_is_reckoned(dry: Callable[..., dict[str, Any]]) -> None:
    told = dry([row(str(n)) for n in range(5000)], tick_s=0.01)
    (file,) = told["files"]
    assert not file["complete"]
    assert told["error"] is None
    assert 3500 < file["examples"] < 6500
    assert told["outcome"]["n_examples"] == file["examples"]
    assert any(text.startswith("Within 10 s the first ") for text in told["warnings"])


def test_time_is_left_for_the_validation_file(dry: Callable[..., dict[str, Any]]) -> None:
    told = dry([row(str(n)) for n in range(5000)], [row(f"v{n}") for n in range(20)], tick_s=0.01)
    assert [file["complete"] for file in told["files"]] == [False, True]


def test_both_files_are_told_of_although_the_first_is_bad(dry: Callable[..., dict[str, Any]]) -> None:
    told = dry([row("a"), {"messages": []}], [row("a")])
    assert told["error"]["code"] == "invalid_training_file"
    assert [file["n_errors"] for file in told["files"]] == [1, 0]
    told = dry([row("a")], [row("b")], deleted=True)
    assert told["error"]["code"] == "deleted_training_file"
    assert (told["outcome"], told["files"][1]["examples"]) == (None, 1)


def test_what_no_job_could_read(dry: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    assert dry([row("a")], base_path=str(tmp_path / "none"))["error"]["code"] == "base_not_found"
    told = dry([{"prompt": "a", "completion": "b"}])
    assert "prompt/completion pairs" in told["error"]["message"]
    assert dry([row("a")])["error"]["code"] == "invalid_n_examples"


def test_the_spec_travels(byte_base: Path) -> None:
    inner = ValidateSpec("dpo", {}, str(byte_base), 64, "file:///x", "a", "b", None, None, 9)
    spec = DryRunSpec(inner, 1.0, 2, 3)
    assert DryRunSpec.from_mapping(json.loads(json.dumps(spec.to_mapping()))) == spec
