"""Several jobs in one step get what each gets alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from parity.families import FAMILIES, tiny_model
from parity.jobs_together import furthest


@pytest.mark.parametrize("family", FAMILIES)
def test_three_methods_and_ranks_get_the_gradients_that_each_gets_alone(family: str) -> None:
    assert furthest(tiny_model(family)) <= 1e-6


def test_they_are_the_same_bits_where_matrix_products_work_row_by_row() -> None:
    """MKL is told so for a process of its own; where another library multiplies, or another processor, it may not be so."""
    environment = os.environ | {"MKL_CBWR": "AVX2,STRICT", "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-W", "ignore", "-m", "parity.jobs_together"]
    answer = json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    if not answer["rows"]:
        pytest.skip("a row of a matrix product depends on the rows beside it, on this machine")
    assert answer["same"] == dict.fromkeys([*FAMILIES, "wide llama"], True)
