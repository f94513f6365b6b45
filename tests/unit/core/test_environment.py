import pytest

from tunesmith.core.environment import ATTEMPT_TAG, JOB_TAG, passed_on, tag


def test_a_tag_is_handed_on_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tag() == {}
    monkeypatch.setenv(JOB_TAG, "ftjob-x")
    monkeypatch.setenv(ATTEMPT_TAG, "3")
    assert tag() == {"TUNESMITH_JOB": "ftjob-x", "TUNESMITH_ATTEMPT": "3"}


def test_a_secret_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("PATH", "/bin")
    assert passed_on()["PATH"] == "/bin"
    assert "secret" not in passed_on().values()
