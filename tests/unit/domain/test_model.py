"""The laws of tuned models' names."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.domain.model import checkpoint_name, suffix_for_name, tuned_name


@pytest.mark.parametrize(
    ("suffix", "shown"),
    [
        ("initial_tuning", "initial-tuning"),
        ("custom suffix", "custom-suffix"),
        ("v1.2-Final", "v1.2-Final"),
        ("a:b/c", "a-b-c"),
        ("__a__b__", "a-b"),
        ("größe", "gr-e"),
        ("☃", ""),
        ("", ""),
    ],
)
def test_a_suffix_keeps_letters_digits_dots_and_hyphens(suffix: str, shown: str) -> None:
    assert suffix_for_name(suffix) == shown


@given(st.text(max_size=64))
def test_a_suffix_in_a_name_needs_no_escaping_and_is_stable(suffix: str) -> None:
    shown = suffix_for_name(suffix)
    assert re.fullmatch(r"[A-Za-z0-9.-]*", shown)
    assert len(shown) <= len(suffix)
    assert suffix_for_name(shown) == shown


def test_names_are_openais() -> None:
    assert tuned_name("gpt-4o-mini", "acme", "x_y", "C4ZiCljE") == "ft:gpt-4o-mini:acme:x-y:C4ZiCljE"
    assert tuned_name("nano", "acme", None, "C4ZiCljE") == "ft:nano:acme::C4ZiCljE"
    assert tuned_name("team:v1", "acme", None, "C4ZiCljE") == "ft:team-v1:acme::C4ZiCljE"
    assert checkpoint_name("nano", "acme", None, "C4ZiCzLn", 90) == "ft:nano:acme::C4ZiCzLn:ckpt-step-90"


def test_a_model_tuned_further_keeps_its_bases_name() -> None:
    assert tuned_name("ft:nano:acme:old:C4ZiCljE", "acme", "new", "AAAAAAAA") == "ft:nano:acme:new:AAAAAAAA"
    assert tuned_name("ft:nano:acme::C4ZiCljE:ckpt-step-8", "acme", None, "AAAAAAAA") == "ft:nano:acme::AAAAAAAA"
