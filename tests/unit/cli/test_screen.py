import io

from rich.console import Console

from tunesmith.cli.demo.screen import Screen


def _screen(*, terminal: bool) -> tuple[Screen, io.StringIO]:
    text = io.StringIO()
    return Screen(Console(file=text, force_terminal=terminal, width=100, highlight=False, soft_wrap=True)), text


def test_without_a_terminal_there_are_plain_lines_only() -> None:
    screen, text = _screen(terminal=False)
    screen.chapter("Begin [here]")
    with screen.bar() as bar:
        for step in range(1, 101):
            bar.at(step, 100, f"loss {1.0 / step:.3f}")
    screen.table(("a", "longer"), [("1", "2")])
    screen.verdict("good", good=True)
    written = text.getvalue()
    assert "\x1b" not in written
    assert "1. Begin [here]" in written
    assert written.count("step ") == 11
    assert "step 100/100  loss 0.010" in written
    assert "   a  longer\n   1  2\n" in written


def test_in_a_terminal_there_is_a_bar() -> None:
    screen, text = _screen(terminal=True)
    with screen.bar() as bar:
        bar.at(5, 10, "loss 0.250")
        screen.line("an event meanwhile")
    screen.table(("a", "b"), [("[1]", "2")])
    written = text.getvalue()
    assert "5/10" in written
    assert "loss 0.250" in written
    assert "an event meanwhile" in written
    assert "[1]" in written
