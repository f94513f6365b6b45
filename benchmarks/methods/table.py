"""Figures of rounds as lines of Markdown tables."""

import statistics

from benchmarks.methods.works import Work

Round = dict[str, dict[str, float]]


def head(*titles: str) -> list[str]:
    """Return the first two lines of a table."""
    return ["| " + " | ".join(titles) + " |", "| " + " | ".join("---" for _ in titles) + " |"]


RATES = head("work", "peer", "rounds", "its rate a CPU s", "ours", "ratio, CPU", "goal", "ratio, wall")
COSTS = head("work", "peer", "peak memory GB, ours of its", "ratio", "first step CPU s, ours of its", "ratio", "ratio, wall")


def spread(values: list[float], digits: int = 2) -> str:
    """Return median and range."""
    middle = f"{statistics.median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def rates(work: Work, peers: list[str], rounds: list[Round], ours: str) -> list[str]:
    """Return a line for each peer and stretch of a work."""
    lines: list[str] = []
    for peer in peers:
        for stretch in work.stretches:
            key = f"{stretch.name} per CPU s"
            goal = work.goals.get((peer, stretch.name))
            title = work.title if len(work.stretches) == 1 else f"{work.title}, {stretch.name}"
            lines.append(
                _line(
                    f"{title} ({work.unit})",
                    f"`{peer}`",
                    str(len(rounds)),
                    spread([each[peer][key] for each in rounds]),
                    spread([each[ours][key] for each in rounds]),
                    f"**{spread([each[ours][key] / each[peer][key] for each in rounds])}x**",
                    f"{goal:g}x" if goal else "",
                    spread(_ratios(rounds, ours, peer, f"{stretch.name} per wall s")) + "x",
                )
            )
    return lines


def costs(work: Work, peers: list[str], rounds: list[Round], ours: str) -> list[str]:
    """Return a line for each peer of a work: memory and the time to the first step."""
    return [
        _line(
            work.title,
            f"`{peer}`",
            _both(rounds, ours, peer, "peak GB"),
            f"**{spread(_ratios(rounds, ours, peer, 'peak GB'))}x**",
            _both(rounds, ours, peer, "first step CPU s"),
            f"**{spread(_ratios(rounds, ours, peer, 'first step CPU s'))}x**",
            f"{spread(_ratios(rounds, ours, peer, 'first step wall s'))}x",
        )
        for peer in peers
    ]


def _ratios(rounds: list[Round], ours: str, peer: str, key: str) -> list[float]:
    return [each[ours][key] / each[peer][key] for each in rounds]


def _both(rounds: list[Round], ours: str, peer: str, key: str) -> str:
    mine, its = (statistics.median(each[side][key] for each in rounds) for side in (ours, peer))
    return f"{mine:.2f} of {its:.2f}"


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"
