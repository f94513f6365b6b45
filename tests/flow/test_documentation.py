"""The documentation's Python as a reader runs it, with real trainings: by `make docs` and `make soak` alone."""

import time
from pathlib import Path
from typing import Any

import pytest

from laws import documented
from laws.thorough import THOROUGH


@pytest.mark.slow
@pytest.mark.skipif(not THOROUGH, reason="a training more; tests/contract/test_documentation.py runs the pages each time")
def test_the_quickstart_trains_and_the_model_answers(embedded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documented.few_examples(tmp_path)
    monkeypatch.chdir(tmp_path)
    said = documented.run_all(embedded.url, lambda: time.sleep(0.5))
    assert "The job has successfully completed" in said
    assert "step,train_loss" in said
