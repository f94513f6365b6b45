"""Curves: what is smoothed, thinned and put into one chart."""

import json

import pytest

from tunesmith.dashboard.curves import Drawings, charts, option, points, smoothed
from tunesmith.services.details import thinned

CURVES = {"columns": ["step", "train_loss", "valid_loss"], "rows": [[1, 4.0, None], [2, 2.0, 3.0], [3, 1.0, None]]}


def test_a_smoothed_constant_is_the_constant_from_the_first_step_on():
    assert [value for _, value in smoothed([[step, 5.0] for step in range(9)], 0.9)] == pytest.approx([5.0] * 9)


def test_no_weight_smooths_nothing():
    assert smoothed([[1, 4.0], [2, 2.0]], 0.0) == [[1, 4.0], [2, 2.0]]


def test_what_was_not_measured_is_no_point():
    assert points(CURVES, "valid_loss") == [[2, 3.0]]
    assert points(CURVES, "train_mean_reward") == []


def test_charts_are_those_with_columns_and_runs_are_named_where_there_are_several():
    assert charts({"a": CURVES}) == [("Loss", ["train_loss", "valid_loss"])]
    alone = option("Loss", ["train_loss"], {"a": CURVES}, 0.0)
    both = option("Loss", ["train_loss"], {"a": CURVES, "b": CURVES}, 0.0)
    assert [line["name"] for line in alone["series"]] == ["train_loss"]
    assert [line["name"] for line in both["series"]] == ["a · train_loss", "b · train_loss"]
    assert both["series"][0]["itemStyle"] != both["series"][1]["itemStyle"]


def test_a_run_has_one_colour_and_what_is_validated_another_line():
    columns = ["train_loss", "valid_loss", "full_valid_loss"]
    curves = {"columns": ["step", *columns], "rows": [[1, 4.0, 3.0, 2.0]]}
    lines = option("Loss", columns, {"a": curves, "b": curves, "c": curves}, 0.0)["series"]
    assert [line["lineStyle"]["type"] for line in lines] == ["solid", "dashed", "dotted"] * 3
    assert len({line["itemStyle"]["color"] for line in lines}) == 3
    assert len({line["itemStyle"]["color"] for line in option("Loss", columns, {"a": curves}, 0.0)["series"]}) == 3


def test_thinning_keeps_the_extremes_the_ends_and_what_is_rare():
    rows = [[step, 1.0, None] for step in range(1, 10_001)]
    rows[4_321][1], rows[7_000][1], rows[5_555][2] = 9.0, -9.0, 0.5
    few = thinned(rows, 100)
    assert len(few) <= 120
    assert few[0] == rows[0]
    assert few[-1] == rows[-1]
    assert all(rows[index] in few for index in (4_321, 7_000, 5_555))
    assert thinned(few, 1_000) == few


def test_all_who_look_at_the_same_answers_share_a_drawing():
    drawings = Drawings(most=2)
    answer = {"columns": ["step", "train_loss"], "rows": [[1, 1 / 3], [2, 0.25]]}
    first = drawings.text("Loss", ["train_loss"], {"a": answer}, 0.0)
    assert drawings.text("Loss", ["train_loss"], {"a": answer}, 0.0) is first
    assert json.loads(first)["series"][0]["data"] == [[1, 0.333333], [2, 0.25]]
    for other in ({"a": dict(answer)}, {"b": answer}):
        assert drawings.text("Loss", ["train_loss"], other, 0.0) is not first
    assert drawings.text("Loss", ["train_loss"], {"a": answer}, 0.0) is not first, "the oldest went"
