"""Secrets at rest: what is sealed shows nothing and opens with its key alone; what never was sealed stays readable."""

import pytest

from tunesmith.core.secrets import FILE, SecretLost, Secrets


def test_what_is_sealed_is_opened_by_another_process_and_shows_nothing(tmp_path):
    sealed = Secrets(tmp_path).seal("the key")
    assert "the key" not in sealed
    assert sealed != Secrets(tmp_path).seal("the key")
    assert Secrets(tmp_path).open(sealed) == "the key"
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_another_key_opens_nothing_and_says_which_file_is_missed(tmp_path):
    sealed = Secrets(tmp_path).seal("the key")
    (tmp_path / FILE).unlink()
    with pytest.raises(SecretLost, match=FILE):
        Secrets(tmp_path).open(sealed)


def test_what_was_kept_before_there_was_a_key_is_readable(tmp_path):
    assert Secrets(tmp_path).open("whsec_AAAA") == "whsec_AAAA"
    assert not (tmp_path / FILE).exists()
