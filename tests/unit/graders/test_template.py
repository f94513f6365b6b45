import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.graders.base import GradingFailed, Sample
from tunesmith.graders.template import TemplateRefused, missing, parse, render

ITEM = {
    "x": "text",
    "n": 1.0,
    "i": 7,
    "yes": True,
    "none": None,
    "list": [1, {"deep": "ü"}],
    "a b": {"c.d": "dotted"},
    "t": "{{ item.x }}",
    "items": "a column",
    "häuser-2": "kept",
}


def sample(text="said", **more):
    made = Sample.of_text(text, ITEM)
    return Sample(made.item, {**made.sample, **more})


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("", ""),
        ("plain } { }} text", "plain } { }} text"),
        ("{{item.x}}{{ item.x }}", "texttext"),
        ("<{{  item.x\n}}>", "<text>"),
        ("{{item.n}} {{item.i}} {{item.yes}} {{item.none}}", "1.0 7 true null"),
        ("{{ item.list }}", '[1, {"deep": "ü"}]'),
        ("{{ item.list[1].deep }}", "ü"),
        ("{{ item['a b'][\"c.d\"] }}", "dotted"),
        ("{{ item.t }}", "{{ item.x }}"),
        ("{{ item.items }}", "a column"),
        ("{{ item.häuser-2 }}", "kept"),
        ("{{ \"{{\" }} {{ '}}' }}", "{{ }}"),
        ("{{ sample.output_text }}", "said"),
        ("{{ sample.choices[0].message.content }}", "said"),
    ],
)
def test_what_is_rendered(template, text):
    assert render(template, sample()) == text


def test_tools_and_json_of_a_sample():
    calls = [{"function": {"name": "look", "arguments": '{"a": 1}'}}]
    assert render("{{ sample.output_tools[0].function.arguments }}", sample(output_tools=calls)) == '{"a": 1}'
    assert render("{{ sample.output_json.a[0] }}/{{ sample.output_json }}", sample('{"a": [2]}')) == '2/{"a": [2]}'
    assert render("{{ item }}", Sample({"a": 1}, {})) == '{"a": 1}'


@pytest.mark.parametrize(
    ("template", "flag"),
    [
        ("{{ item.y }}", "invalid_variable_error"),
        ("{{ item.list[2] }}", "invalid_variable_error"),
        ("{{ item.x[0] }}", "invalid_variable_error"),
        ("{{ item.x.upper }}", "invalid_variable_error"),
        ("{{ item.__class__ }}", "invalid_variable_error"),
        ("{{ item.list.append }}", "invalid_variable_error"),
        ("{{ item.keys }}", "invalid_variable_error"),
        ("{{ item.none.x }}", "invalid_variable_error"),
        ("{{ sample.output_tools[0] }}", "invalid_variable_error"),
        ("{{ sample.output_audio.data }}", "invalid_variable_error"),
        ("{{ sample.output_json }}", "sample_parse_error"),
        ("{{ sample.output_json.a }}", "sample_parse_error"),
    ],
)
def test_a_path_that_leads_nowhere_is_told(template, flag):
    with pytest.raises(GradingFailed) as failure:
        render(template, sample())
    assert failure.value.flag == flag
    assert template.strip("{ }").split("[")[0].split(".")[0] in failure.value.details


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "{'a': 1}", "", "[" * 100_000])
def test_what_is_not_json_has_no_json(text):
    assert Sample.of_text(text).sample["output_json"] is None


@pytest.mark.parametrize(
    "template",
    [
        "{{",
        "a {{ item.x",
        "{{}}",
        "{{ }}",
        "{{ me.x }}",
        "{{ item. }}",
        "{{ item..x }}",
        "{{ item.x y }}",
        "{{ item[x] }}",
        "{{ item[-1] }}",
        "{{ item.x | upper }}",
        "{{ item.x() }}",
        "{{ sample }}",
        "{{ sample.text }}",
        "{{ sample[0] }}",
        "{{ 'a }}",
        "{{ {{ item.x }} }}",
        "{{ item.x + 1 }}",
        "{{ 1 }}",
    ],
)
def test_what_is_no_path_is_refused_with_its_place(template):
    with pytest.raises(TemplateRefused, match=f"character {template.index('{{')}"):
        parse(template)


@given(st.text(alphabet="{}[]. \"'itemsaplx0\n", max_size=60))
def test_whatever_comes_is_parsed_or_refused(template):
    try:
        parts = parse(template)
    except TemplateRefused:
        assert "{{" in template
        return
    if "{{" not in template:
        assert "".join(map(str, parts)) == template


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(), st.lists, max_leaves=9
    )
)
def test_what_is_filled_in_is_what_json_writes(value):
    text = render("{{ item.v }}", Sample({"v": value}, {}))
    assert text == value if isinstance(value, str) else json.loads(text) == value


def test_what_grows_too_long_is_told():
    with pytest.raises(GradingFailed, match="longer than"):
        render("{{ item.v }}" * 9, Sample({"v": "x" * 1_000_000}, {}))


def test_the_columns_that_a_row_lacks_are_told_as_they_are_written():
    assert missing(
        ["{{ item.a }} {{ item.b[0] }}", "{{ sample.output_text }}", "{{ item.c.d }}"], {"a": math.pi, "b": []}
    ) == [
        "item.b[0]",
        "item.c.d",
    ]
