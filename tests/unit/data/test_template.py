"""The template's environment: what `transformers` offers to templates, no more, and nothing that leaves the sandbox."""

import time

import pytest

from tunesmith.data.template import BrokenTemplate, ChatTemplate, TemplateRefused


class Noon:
    """A clock that stands."""

    def now(self) -> float:
        return time.mktime((2026, 3, 1, 12, 0, 0, 0, 0, -1))

    def monotonic(self) -> float:
        return 0.0


def render(source: str, messages: list[dict[str, object]] | None = None) -> str:
    return ChatTemplate(source, {"bos_token": "<s>"}, Noon()).render(messages or [])


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ bos_token }}|{{ eos_token }}|{{ unknown is defined }}", "<s>||False"),
        ("{{ {'b': '<é>', 'a': 1} | tojson }}", '{"b": "<é>", "a": 1}'),
        ("{{ {'b': 2, 'a': 1} | tojson(sort_keys=True, separators=(',', ':')) }}", '{"a":1,"b":2}'),
        ("{{ ['é'] | tojson(ensure_ascii=True, indent=1) }}", '[\n "\\u00e9"\n]'),
        ("{{ strftime_now('%d %b %Y') }}", "01 Mar 2026"),
        ("  {% if true %}\na\n  {% endif %}\nb", "a\nb"),
        (
            "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% elif i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}",
            "02",
        ),
        ("{% set ns = namespace(a=1) %}{% set ns.a = ns.a + 1 %}{{ ns.a }}", "2"),
        ("{{ dict(a=1)['a'] }}{{ dict.fromkeys(['k'], 3)['k'] }}", "13"),
        ("{{ tools is none }}{{ documents is none }}{{ add_generation_prompt }}", "TrueTrueFalse"),
        ("{% generation %}a{% endgeneration %}", "a"),
    ],
)
def test_what_templates_can_use(source: str, text: str) -> None:
    assert render(source) == text


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ raise_exception('only text') }}", "only text"),
        ("{{ 'a' + messages }}", "list"),
        ("{{ messages[0].content }}", "no element 0"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{% set ns = namespace(_a=1) %}", "_a"),
        ("{% set ns = namespace() %}{% set ns._a = 1 %}", "_a"),
        ("{{ dict.__class__ }}{{ dict.__class__.x }}", "unsafe"),
        ("{{ 1 // 0 }}", "zero"),
        ("{% include 'a' %}", "loader"),
    ],
)
def test_what_templates_are_refused(source: str, words: str) -> None:
    with pytest.raises(TemplateRefused, match=words):
        render(source)


@pytest.mark.parametrize("source", ["{% if %}", "{{ a", "{% generation %}a", "{% nonsense %}", "{{ a | no_such_filter }}"])
def test_what_is_no_template(source: str) -> None:
    with pytest.raises(BrokenTemplate, match="does not parse"):
        render(source)


def test_spans_of_generation_blocks() -> None:
    template = ChatTemplate(
        "é{% generation %}ab{% endgeneration %}-{% generation %}{% endgeneration %}{{ messages | length }}", {}, Noon()
    )
    assert template.marks_generation
    assert template.render_with_spans([{}, {}]) == ("éab-2", [(1, 3)])
    inside = ChatTemplate("x{% set a %}{% generation %}ab{% endgeneration %}{% endset %}y{{ a }}", {}, Noon())
    assert inside.render_with_spans([]) == ("xyab", None)
    assert not ChatTemplate("a", {}, Noon()).marks_generation


def test_constants_are_not_parts_of_texts() -> None:
    template = ChatTemplate(
        "made by a developer {% if messages[0].role in ['system', 'tool'] %}a tool{% endif %}", {}, Noon()
    )
    assert template.compares_with("tool")
    assert not template.compares_with("developer")
