"""What a `python` grader may return, what is told of one that fails, and what is refused before it is ever called."""

import json
import math
import time
from typing import Any

import pytest

from tunesmith.graders.base import GraderRefused, GradingFailed

GRADE = "def grade(sample, item):\n    "


def failure(box: Any, source: str, **item: Any) -> str:
    """Return what is told of a grader that fails by its own fault."""
    with pytest.raises(GradingFailed) as failed:
        box.grade(source, **item)
    assert failed.value.flag == "python_grader_runtime_error"
    return failed.value.details


def refusal(box: Any, source: str, image_tag: str | None = None) -> tuple[str, str]:
    """Return the field and the text with which a grader is refused."""
    with pytest.raises(GraderRefused) as refused:
        box.check(source, image_tag)
    return refused.value.field, refused.value.message


@pytest.mark.parametrize(
    ("returned", "score"),
    [("1", 1.0), ("True", 1.0), ("False", 0.0), ("0.25", 0.25), ("-3", -3.0), ("1e308", 1e308), ("2**70", 2.0**70)],
)
def test_a_number_is_a_score(bare: Any, returned: str, score: float) -> None:
    assert bare.grade(f"{GRADE}return {returned}") == score


@pytest.mark.parametrize("returned", ["np.float64(0.5)", "np.float32(0.5)", "np.mean([0, 1])", "np.array([0.5])[0]"])
def test_a_number_of_numpy_s_is_a_score(with_numpy: Any, returned: str) -> None:
    assert with_numpy.grade(f"import numpy as np\n{GRADE}return {returned}") == 0.5
    assert with_numpy.grade(f"import numpy as np\n{GRADE}return np.bool_(True) + np.int64(2)") == 3


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ("None", "must return a number, not None"),
        ("'0.5'", "not a value of the type str"),
        ("[1]", "not a value of the type list"),
        ("1j", "not a value of the type complex"),
        ("float('nan')", "a finite number, not nan"),
        ("float('inf')", "a finite number, not inf"),
        ("-float('inf')", "a finite number, not -inf"),
        ("10**400", "too large"),
    ],
)
def test_what_is_no_finite_number_is_no_score(bare: Any, returned: str, told: str) -> None:
    assert told in failure(bare, f"{GRADE}return {returned}")


def test_an_array_is_no_score(with_numpy: Any) -> None:
    assert "ndarray" in failure(with_numpy, f"import numpy as np\n{GRADE}return np.array([0.5])")
    assert "not nan" in failure(with_numpy, f"import numpy as np\n{GRADE}return np.float32('nan')")


def test_it_is_given_the_sample_and_the_row(bare: Any) -> None:
    keys = ["choices", "output_audio", "output_json", "output_text", "output_tools"]
    assert bare.grade(f"{GRADE}return sorted(sample) == {keys}", text="x") == 1
    assert (
        bare.grade(f"{GRADE}return sample['output_text'] == 'ä' and item == {{'a': [1, None, 'ü']}}", "ä", a=[1, None, "ü"])
        == 1
    )
    assert bare.grade(f"{GRADE}return sample['output_json']['b']", text=json.dumps({"b": 0.75})) == 0.75
    assert bare.grade(f"{GRADE}return sample['choices'][0]['message']['content'] == 'x'", text="x") == 1


def test_module_code_classes_and_imports_work(bare: Any) -> None:
    source = (
        "from __future__ import annotations\nimport dataclasses, enum, json, re, tempfile, threading, asyncio\n"
        "@dataclasses.dataclass\nclass Point:\n    x: int = 2\n"
        "async def twice(n):\n    await asyncio.sleep(0)\n    return 2 * n\n"
        "def work(out): out.append(1)\n"
        "def grade(sample, item):\n    out = []\n"
        "    thread = threading.Thread(target=work, args=(out,)); thread.start(); thread.join()\n"
        "    return asyncio.run(twice(Point().x)) + len(out)\n"
    )
    bare.check(source)
    assert bare.grade(source) == 5


def test_an_error_is_told_with_the_user_s_own_lines(bare: Any) -> None:
    told = failure(bare, "def inner(row):\n    return row['score']\ndef grade(sample, item):\n    return inner(item)\n")
    assert told.startswith("Traceback (most recent call last):")
    assert 'File "grader.py", line 4, in grade' in told
    assert "return row['score']" in told
    assert told.endswith("KeyError: 'score'")
    assert "call.py" not in told
    assert "zygote" not in told


def test_a_long_error_is_told_in_short(bare: Any) -> None:
    told = failure(bare, f"{GRADE}raise ValueError('ä' * 10**6)")
    assert told.count("ä") > 100
    assert len(told.encode()) <= 8192
    assert "RecursionError" in failure(bare, f"{GRADE}return grade(sample, item)")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("import time; time.sleep(100)", "took longer than 3 seconds"),
        ("import ctypes; ctypes.string_at(0)", "crashed its process (SIGSEGV)"),
        ("import os; os._exit(0)", "ended its process before it returned (exit status 0)"),
        ("import os; os._exit(7)", "(exit status 7)"),
        ("import sys; sys.exit(1)", "SystemExit: 1"),
        ("return len(bytearray(1 << 30))", "more memory than the 512 MB"),
        ("import os; os.fork()", "PermissionError"),
        ("import subprocess; subprocess.run(['true'])", "PermissionError"),
        ("import os; [os.write(3, b'x' * 9000), os._exit(0)]", "wrote more than a result"),
        ("import os; [os.write(3, b'x'), os._exit(0)]", "something else than a result"),
        (
            "import sys; sys.setrecursionlimit(10**9); A = type('A', (), {'__repr__': lambda a: repr(a)}); repr(A())",
            "(SIGSEGV)",
        ),
    ],
)
def test_every_bad_end_has_its_words_and_the_next_call_works(bare: Any, line: str, told: str) -> None:
    assert told in failure(bare, f"{GRADE}{line}\n    return 1")
    assert bare.grade(f"{GRADE}return 1") == 1


def test_what_it_prints_goes_nowhere(bare: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """A gigabyte of it, which a busy machine may take seconds over."""
    lines = "for _ in range(150): print('printed' * 1000000)\n    print('printed', file=sys.stderr)"
    patient = bare.patient()
    try:
        assert patient.grade(f"import sys\n{GRADE}{lines}\n    return 1") == 1
    finally:
        patient.close()
    out, err = capfd.readouterr()
    assert "printed" not in out + err


def test_calls_share_nothing(bare: Any) -> None:
    assert bare.grade(f"import builtins\n{GRADE}builtins.left = 1\n    return 1") == 1
    assert bare.grade(f"import builtins\n{GRADE}return hasattr(builtins, 'left')") == 0


def test_a_random_grader_is_not_the_same_in_every_call(bare: Any) -> None:
    assert len({bare.grade(f"import random\n{GRADE}return random.random()") for _ in range(4)}) == 4


def test_a_row_that_is_too_large_is_said_to_be(bare: Any) -> None:
    told = failure(bare, f"{GRADE}return 1", text="x" * (9 << 20))
    assert "8388608" in told
    assert bare.grade(f"{GRADE}return len(item['long'])", long="x" * (7 << 20)) == 7 << 20
    assert "cannot be given" in failure(bare, f"{GRADE}return 1", bad={1, 2})


def test_a_row_may_hold_what_json_of_python_may(bare: Any) -> None:
    assert math.isclose(bare.grade(f"{GRADE}return item['a'] != item['a']", a=float("nan")), 1.0)
    assert bare.grade(f"{GRADE}return len(item['a'])", a="\ud800") == 1


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("x = 1", "must define a function `grade(sample, item)`"),
        ("grade = 5", "must define a function"),
        ("def grade(sample): return 1", "parameters (sample)"),
        ("def grade(sample, item, more): return 1", "exactly two"),
        ("def grade(sample, item, more=1): return 1", "exactly two"),
        ("def grade(*all): return 1", "exactly two"),
        ("def grade(sample, item, *, named): return 1", "exactly two"),
        ("def f():\n    def grade(sample, item): return 1", "must define a function"),
        ("1 / 0", "ZeroDivisionError"),
        ("import time; time.sleep(100)", "longer than 10 seconds"),
        ("import os; os._exit(0)", "ended its process"),
        ("\ud800", "surrogates not allowed"),
        ("x = '\x00'", "not Python"),
        ("(" * 300 + ")" * 300, "not Python"),
    ],
)
def test_a_source_without_a_fit_grade_is_refused(bare: Any, source: str, told: str) -> None:
    if "sleep" in source:
        began = time.monotonic()
    field, text = refusal(bare, source)
    assert field == "source"
    assert told in text
    if "sleep" in source:
        assert time.monotonic() - began < 13


@pytest.mark.parametrize(
    "source",
    [
        "def grade(sample, item): return 1",
        "def grade(a, b, /): return 1",
        "grade = lambda sample, item: 1",
        "class G:\n    def __call__(self, sample, item): return 1\ngrade = G()",
        "import functools\ndef g(x, sample, item): return 1\ngrade = functools.partial(g, 1)",
        "try:\n    import a_package_that_nobody_has\nexcept ImportError:\n    pass\ndef grade(sample, item): return 1",
        "def grade(sample, item, **more): return 1",
    ],
)
def test_a_fit_source_is_taken_without_a_call(bare: Any, source: str) -> None:
    bare.check(source, "2025-05-08")


def test_a_syntax_error_is_told_with_its_line(bare: Any) -> None:
    field, text = refusal(bare, "def grade(sample, item):\n    retrun 1\n")
    assert field == "source"
    assert "line 2" in text
    assert "    retrun 1\n           ^" in text


def test_an_unknown_image_is_refused(bare: Any) -> None:
    field, text = refusal(bare, f"{GRADE}return 1", "2026-01-01")
    assert field == "image_tag"
    assert "2025-05-08" in text


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("import numpy as np", "`tunesmith grader-env install`"),
        ("from rapidfuzz import fuzz", "`tunesmith grader-env install`"),
        ("import sklearn.metrics", "`tunesmith grader-env install --full`"),
        ("import pandas", "--full`"),
        ("import a_package_that_nobody_has", "ast-grep-py"),
    ],
)
def test_a_missing_package_is_refused_with_what_installs_it(bare: Any, line: str, command: str) -> None:
    for source in (f"{line}\n{GRADE}return 1", f"{GRADE}{line}\n    return 1"):
        field, text = refusal(bare, source)
        assert field == "source"
        assert command in text


def test_the_packages_of_the_environment_can_be_imported(with_numpy: Any) -> None:
    source = f"import numpy as np\n{GRADE}return float(np.linalg.norm(np.eye(4) @ np.ones(4)))"
    with_numpy.check(source)
    assert with_numpy.grade(source) == 2
    assert "grader-env install" in refusal(with_numpy, f"import rapidfuzz\n{GRADE}return 1")[1]
