"""The formula of `multi`: `calculate_output` over the scores of its graders, parsed once and computed without `eval`.

Numbers, names, parentheses, `+ - * /`, `^` for powers, and the functions below. As in mathematics: `^` binds tightest and to
the right (`2^3^2` is 512), then the sign (`-2^2` is -4), then `* /`, then `+ -`. `log` is the natural logarithm.
"""

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from tunesmith.graders.base import GradingFailed

N_MAX_FORMULA: Final = 4096
#: How deep parentheses, signs and powers may lie in each other.
N_MAX_DEPTH: Final = 100

Scores = Mapping[str, float]

#: Functions of one value.
_OF_ONE: Final[Mapping[str, Callable[[float], float]]] = {
    "abs": abs,
    "floor": lambda value: float(math.floor(value)),
    "ceil": lambda value: float(math.ceil(value)),
    "exp": math.exp,
    "sqrt": math.sqrt,
    "log": math.log,
}
#: Functions of one value or more.
_OF_MANY: Final[Mapping[str, Callable[..., float]]] = {
    "min": lambda *values: min(values),
    "max": lambda *values: max(values),
}
FUNCTIONS: Final = frozenset(_OF_ONE) | frozenset(_OF_MANY)
_OF_TWO: Final[Mapping[str, Callable[[float, float], float]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "^": math.pow,
}

_NAME: Final = re.compile(r"[^\W\d]\w*")
_TOKEN: Final = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[^\W\d]\w*)|(?P<sign>[-+*/^(),]))"
)
#: How tightly operators bind, and signs.
_TIGHTNESS: Final = {"+": 1, "-": 1, "*": 2, "/": 2, "^": 4}
_UNARY: Final = 3


class FormulaRefused(ValueError):
    """A text that is no formula over the graders; the message shows where."""

    def __init__(self, why: str, text: str, position: int) -> None:
        start = max(0, position - 60)
        line = text[start : position + 20].replace("\n", " ").replace("\t", " ")
        super().__init__(f"{why}\n  {line}\n  {' ' * (position - start)}^")


@dataclass(frozen=True, slots=True)
class _Apply:
    """Take so many values off the stack, and put the function's value there."""

    function: Callable[..., Any]
    n: int


#: A step of the program for a stack: put a number there, the score of a name, or a function's value.
_Step = float | str | _Apply


@dataclass(frozen=True, slots=True)
class Formula:
    """A parsed formula."""

    text: str
    _program: tuple[_Step, ...]

    @property
    def names(self) -> frozenset[str]:
        """The names that it speaks of."""
        return frozenset(step for step in self._program if isinstance(step, str))

    def compute(self, scores: Scores) -> float:
        """Return the formula's value.

        Raises:
            GradingFailed: `formula_parse_error` for a division by nought, a logarithm of what has none, a result that is
                not finite.
        """
        try:
            value = self._run(scores)
        except (ArithmeticError, ValueError) as error:
            raise GradingFailed("formula_parse_error", f"'{self.text}' cannot be computed: {error}") from error
        if not math.isfinite(value):
            raise GradingFailed("formula_parse_error", f"'{self.text}' gives {value}")
        return value

    def _run(self, scores: Scores) -> float:
        stack: list[float] = []
        for step in self._program:
            if isinstance(step, _Apply):
                values = stack[-step.n :]
                del stack[-step.n :]
                stack.append(step.function(*values))
            else:
                stack.append(scores[step] if isinstance(step, str) else step)
        return stack[0]


def is_name(text: str) -> bool:
    """Say whether a formula can speak of a grader by this name."""
    return _NAME.fullmatch(text) is not None


@lru_cache(maxsize=1024)
def parse(text: str, known: frozenset[str]) -> Formula:
    """Parse a formula over the graders that are known.

    Raises:
        FormulaRefused: it is none; the message has a caret under what is wrong.
    """
    return Formula(text, tuple(_Parser(text, known).whole()))


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    position: int


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    position = 0
    end = len(text.rstrip())
    while position < end:
        found = _TOKEN.match(text, position)
        if found is None:
            position += len(text[position:]) - len(text[position:].lstrip())
            raise FormulaRefused(f"does not know '{text[position]}' (a power is written ^)", text, position)
        kind = str(found.lastgroup)
        tokens.append(_Token(kind, found[kind], found.start(kind)))
        position = found.end()
    return [*tokens, _Token("end", "", end)]


class _Parser:
    """Precedence climbing over the tokens; what it makes is a program for a stack, so that no length makes it recurse."""

    def __init__(self, text: str, known: frozenset[str]) -> None:
        self._text = text
        self._known = known
        self._tokens = _tokens(text)
        self._at = 0
        self._program: list[_Step] = []

    def whole(self) -> list[_Step]:
        """Parse everything."""
        self._expression(1, 0)
        if self._here.kind != "end":
            raise self._refused(f"expects an operator, not '{self._here.text}'")
        return self._program

    @property
    def _here(self) -> _Token:
        return self._tokens[self._at]

    def _next(self) -> _Token:
        token = self._here
        self._at += 1
        return token

    def _refused(self, why: str) -> FormulaRefused:
        return FormulaRefused(why, self._text, self._here.position)

    def _expected(self, what: str) -> FormulaRefused:
        found = f"not '{self._here.text}'" if self._here.text else "and ends"
        return self._refused(f"expects {what}, {found}")

    def _take(self, sign: str) -> None:
        if self._here.text != sign:
            raise self._expected(f"'{sign}'")
        self._next()

    def _expression(self, least: int, depth: int) -> None:
        """Parse operands joined by operators that bind at least so tightly."""
        if depth > N_MAX_DEPTH:
            raise self._refused(f"goes deeper than {N_MAX_DEPTH} levels")
        self._operand(depth)
        while (tightness := _TIGHTNESS.get(self._here.text, 0)) >= least:
            sign = self._next().text
            self._expression(tightness if sign == "^" else tightness + 1, depth + 1)
            self._program.append(_Apply(_OF_TWO[sign], 2))

    def _operand(self, depth: int) -> None:
        token = self._here
        match token.kind, token.text:
            case "number", text:
                self._number(float(text))
            case "name", name if name in FUNCTIONS:
                self._call(depth)
            case "name", name:
                self._score(name)
            case "sign", "(":
                self._next()
                self._expression(1, depth + 1)
                self._take(")")
            case "sign", ("-" | "+") as sign:
                self._next()
                self._expression(_UNARY, depth + 1)
                if sign == "-":
                    self._program.append(_Apply(operator.neg, 1))
            case _:
                raise self._expected("a number, a name or '('")

    def _number(self, value: float) -> None:
        if not math.isfinite(value):
            raise self._refused("has a number that is too large")
        self._next()
        self._program.append(value)

    def _score(self, name: str) -> None:
        if name not in self._known:
            raise self._refused(f"speaks of '{name}', which is no grader of it (it has {', '.join(sorted(self._known))})")
        self._next()
        self._program.append(name)

    def _call(self, depth: int) -> None:
        name = self._next().text
        self._take("(")
        self._expression(1, depth + 1)
        n = 1
        while self._here.text == ",":
            if name in _OF_ONE:
                raise self._refused(f"gives {name} more than one value")
            self._next()
            self._expression(1, depth + 1)
            n += 1
        self._take(")")
        self._program.append(_Apply(_OF_ONE.get(name) or _OF_MANY[name], n))
