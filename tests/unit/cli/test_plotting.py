from tunesmith.cli.job_calls import from_csv
from tunesmith.cli.plotting import chart, charts, finals, sparkline


def test_a_sparkline_is_as_wide_as_there_is_room_and_values() -> None:
    assert sparkline([1, 2, 3, 4, 5, 6, 7, 8], 20) == "▁▂▃▄▅▆▇█"
    assert sparkline([0, 0, 7, 7], 2) == "▁█"
    assert sparkline([3.0, 3.0], 5) == "▄▄"
    assert sparkline([], 5) == sparkline([1.0], 0) == ""


def test_a_chart_has_a_line_marks_and_the_ends_of_its_axes() -> None:
    assert chart([(0, 0.0), (3, 3.0)], [(3, 0.0)], width=13, height=3) == [
        "  3 ┤      ⢀⡠⠔⠊",
        "1.5 ┤   ⢀⠤⠒⠁",
        "  0 ┤⡠⠔⠊⠁     ●",
        "    └──────────",
        "     0        3",
    ]
    assert chart([(1, 2.0)], [], width=13, height=3)[:3] == ["  ┤", "2 ┤⠄", "  ┤"]


def test_a_result_file_fills_the_charts_that_it_has_columns_for() -> None:
    curves = from_csv("step,train_loss,valid_loss,full_valid_loss\n1,3.5,,\n2,2.5,2.75,\n")
    assert curves["columns"] == ["step", "train_loss", "valid_loss"]
    assert curves["rows"] == [[1, 3.5, None], [2, 2.5, 2.75]]
    assert charts(curves) == [("loss", "train_loss", "valid_loss")]
    assert finals(curves) == {"train_loss": 2.5, "valid_loss": 2.75}
