"""Graders by the second, one processor: string checks, metrics of 20 and 200 words, templates, formulas; without HTTP.

python -m benchmarks.graders [--seconds 1]
"""

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter

from tunesmith.core.clock import SystemClock
from tunesmith.graders import formula, metrics, template
from tunesmith.graders.base import Sample, Tools
from tunesmith.graders.grader import Grader

TEXT = "the a cat dog house runs quickly slow over under bright green small answer question value price night day"
WORDS = TEXT.split(" ")
CHECK: Any = {"type": "string_check", "input": "{{ sample.output_text }}", "reference": "{{ item.x }}", "operation": "ilike"}
MULTI: Any = {"type": "multi", "graders": {"a": CHECK, "b": CHECK}, "calculate_output": "0.5 * a + min(b, 1) ^ 2"}
PATHS = "{{ item.x }} and {{ sample.output_text }}, {{ sample.choices[0].message.role }}"


def rate(once: Callable[[], object], seconds: float) -> float:
    """Return how often something can be done in a second of processor time."""
    once()
    began, n = time.process_time(), 0
    while time.process_time() - began < seconds:
        once()
        n += 1
    return n / (time.process_time() - began)


def pair(n_words: int, seed: int) -> tuple[str, str]:
    """Return two texts, one in five of whose words differ."""
    chance = random.Random(seed)
    words = chance.choices(WORDS, k=n_words)
    return " ".join(words), " ".join(word if chance.random() < 0.8 else chance.choice(WORDS) for word in words)


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0)
    seconds: float = parser.parse_args().seconds
    sample, tools = Sample.of_text("the answer is 42", {"x": "ANSWER"}), Tools(SystemClock())
    grader: TypeAdapter[Any] = TypeAdapter(Grader)
    print("| | a second |\n|---|---|")
    with asyncio.Runner() as runner:
        for name, wire in (("`string_check`", CHECK), ("`multi` of two, with its formula", MULTI)):
            made = grader.validate_python(wire)
            print(f"| {name} | {rate(lambda made=made: runner.run(made.grade(sample, tools)), seconds):,.0f} |")
    print(f"| template of three paths | {rate(lambda: template.render(PATHS, sample), seconds):,.0f} |")
    parsed = formula.parse(MULTI["calculate_output"], frozenset("ab"))
    print(f"| formula | {rate(lambda: parsed.compute({'a': 0.25, 'b': 0.5}), seconds):,.0f} |")
    print("\n| metric | pairs of 20 words a second | of 200 words |\n|---|---|---|")
    for metric in metrics.METRICS:
        short, long = (
            rate(lambda texts=texts, metric=metric: metrics.measure(metric, *texts), seconds)
            for texts in (pair(20, 1), pair(200, 2))
        )
        print(f"| `{metric}` | {short:,.0f} | {long:,.0f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
