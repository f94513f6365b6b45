import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.graders.base import GradingFailed
from tunesmith.graders.formula import N_MAX_DEPTH, N_MAX_FORMULA, FormulaRefused, parse

KNOWN = frozenset({"a", "b", "long_name", "größe"})
SCORES = {"a": 0.25, "b": 3.0, "long_name": -2.0, "größe": 1.0}


def value(text):
    return parse(text, KNOWN).compute(SCORES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        (" .5 ", 0.5),
        ("2.", 2),
        ("1e-3", 0.001),
        ("1.5E2", 150),
        ("a", 0.25),
        ("größe", 1),
        ("-a", -0.25),
        ("+a", 0.25),
        ("--a", 0.25),
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("8 / 4 / 2", 1),
        ("8 - 4 - 2", 2),
        ("2 ^ 3 ^ 2", 512),
        ("-2 ^ 2", -4),
        ("(-2) ^ 2", 4),
        ("2 ^ -1", 0.5),
        ("2 ^ - 2 ^ 2", 0.0625),
        ("1 + 3 ^ 2", 10),
        ("2 * -3", -6),
        ("2 - -3", 5),
        ("4 ^ .5", 2),
        ("min(a, b, 0.1)", 0.1),
        ("max(a)", 0.25),
        ("abs(long_name)", 2),
        ("floor(-a)", -1),
        ("ceil(a)", 1),
        ("sqrt(16)", 4),
        ("exp(0)", 1),
        ("log(exp(2))", 2),
        ("max(min(a, b), -(1 + 1)) * 2\n", 0.5),
        ("0.5 * a + 0.5 * b", 1.625),
        ("-a * -b", 0.75),
        ("- a ^ 2", -0.0625),
        ("min(1,2)^2", 1),
    ],
)
def test_what_a_formula_gives(text, expected):
    assert value(text) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(
    ("text", "why", "place"),
    [
        ("", "expects a number", 0),
        ("a +", "expects a number", 3),
        ("a b", "expects an operator", 2),
        ("a % 2", "does not know '%'", 2),
        ("a ** 2", "expects a number", 3),
        ("c + 1", "speaks of 'c'", 0),
        ("a + abs", "expects '('", 7),
        ("abs()", "expects a number", 4),
        ("abs(a, b)", "more than one value", 5),
        ("(a", "expects ')'", 2),
        ("a)", "expects an operator", 1),
        ("a(1)", "expects an operator", 1),
        ("1.2.3", "expects an operator", 3),
        ("1e", "expects an operator", 1),
        ("1e999", "too large", 0),
        ("a.b", "does not know '.'", 1),
        ("a, b", "expects an operator", 1),
        ("'a'", "does not know", 0),
        ("a == b", "does not know '='", 2),
        ("a if b else 1", "operator", 2),
        ("__import__('os')", "does not know", 11),
        ("a[0]", "does not know '['", 1),
        ("lambda: 1", "does not know ':'", 6),
        ("pow(a, 2)", "speaks of 'pow'", 0),
        ("a + \u20ac", "does not know '€'", 4),
        ("MIN(a, b)", "speaks of 'MIN'", 0),
    ],
)
def test_anything_else_is_refused_with_a_caret_under_it(text, why, place):
    with pytest.raises(FormulaRefused) as refused:
        parse(text, KNOWN)
    told, line, caret = str(refused.value).splitlines()
    assert why in told
    assert line.rstrip() == f"  {text}".rstrip()
    assert caret == f"  {' ' * place}^"


def test_a_caret_in_a_long_formula_is_shown_with_what_stands_around_it():
    text = "a + " * 500 + "? + b" + " + b" * 100
    with pytest.raises(FormulaRefused) as refused:
        parse(text, KNOWN)
    _, line, caret = str(refused.value).splitlines()
    assert line[caret.index("^")] == "?"
    assert len(line) < 100


@pytest.mark.parametrize(
    "text",
    [
        "1 / (a - a)",
        "0 ^ -1",
        "(-8) ^ 0.5",
        "log(0)",
        "log(-1)",
        "sqrt(-1)",
        "exp(1000)",
        "1e308 * 10",
        "1e308 * 10 - 1e308 * 10",
        "floor(1e308 * 10)",
        "10 ^ 400",
        "-1e308 - 1e308",
    ],
)
def test_what_has_no_finite_value_is_an_error_of_the_grade(text):
    with pytest.raises(GradingFailed) as failure:
        value(text)
    assert failure.value.flag == "formula_parse_error"


def test_no_length_and_no_depth_is_too_much():
    assert value("a" + "+a" * (N_MAX_FORMULA // 2 - 1)) == pytest.approx(0.25 * N_MAX_FORMULA / 2)
    for text in ("(" * 2000 + "a" + ")" * 2000, "-" * 4000 + "a", "2^" * 2000 + "1", "abs(" * 900 + "a" + ")" * 900):
        with pytest.raises(FormulaRefused, match=f"deeper than {N_MAX_DEPTH} levels"):
            parse(text, KNOWN)
    assert value("-" * (N_MAX_DEPTH // 2) + "a") == 0.25


NUMBERS = st.floats(0.01, 100).map(lambda number: f"{number:.4f}")
SUMS = st.recursive(
    NUMBERS | st.sampled_from(["a", "b", "long_name"]),
    lambda inner: (
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/"]), inner).map(" ".join)
        | inner.map(lambda text: f"({text})")
        | inner.map(lambda text: f"-{text}")
        | st.tuples(inner, inner).map(lambda pair: f"max({pair[0]}, {pair[1]})")
    ),
    max_leaves=20,
)


@given(SUMS)
def test_sums_are_pythons_own(text):
    try:
        expected = float(eval(text, {"max": max}, dict(SCORES)))
    except ZeroDivisionError:
        expected = math.inf
    if math.isfinite(expected):
        assert value(text) == pytest.approx(expected)
    else:
        with pytest.raises(GradingFailed):
            value(text)


@given(st.text(alphabet="ab+-*/^(),. 12emnix%\n", max_size=40))
def test_whatever_comes_is_parsed_or_refused(text):
    try:
        formula = parse(text, KNOWN)
    except FormulaRefused:
        return
    assert formula.names <= KNOWN
