import pytest

from tunesmith.cli.output import aligned, clean, table


def test_cells_stand_under_each_other_and_one_column_gives_way() -> None:
    rows = [["id", "name", "state"], ["ftjob-1", "a name that is far too long", "ok"], ["ftjob-22", "日本", "ok"]]
    assert aligned(rows, 100)[2] == "ftjob-22  日本                         ok"
    assert aligned(rows, 28, shorten=1) == [
        "id        name         state",
        "ftjob-1   a name tha…  ok",
        "ftjob-22  日本         ok",
    ]


def test_a_pipe_gets_tabs_and_no_headings(capsys: pytest.CaptureFixture[str]) -> None:
    table(["id", "name"], [["1", "two\twords\n"], ["2", "\x1b[31mred"]])
    assert capsys.readouterr().out == "1\ttwo words \n2\t [31mred\n"


def test_nothing_moves_the_terminal_s_cursor() -> None:
    assert clean("a\x1b]0;title\x07b\u202ec") == "a ]0;title b c"
