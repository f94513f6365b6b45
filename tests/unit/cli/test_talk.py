"""A conversation's commands, and answers as servers stream them."""

import json
import signal
from collections.abc import Iterator

import pytest

from far import FarModel, FarServer, cuts, far_server, said, status, streams
from tunesmith.cli.answers import Answer, ask
from tunesmith.cli.talk import Talk, plain


@pytest.fixture(scope="module")
def far() -> Iterator[FarServer]:
    with far_server() as server:
        server.models = {"plain": FarModel(), "other": FarModel()}
        yield server


@pytest.fixture
def talk(far: FarServer) -> Talk:
    far.acts.clear()
    far.asked.clear()
    return Talk(far.url.removesuffix("/v1"), ["plain"], "Be brief.", {"temperature": 0.0})


def asked(far: FarServer) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in far.asked[-1]["body"]["messages"]]


def test_what_was_said_before_is_sent_again_until_it_is_reset(talk: Talk, far: FarServer) -> None:
    assert (talk.say("one"), talk.say("two")) == (0, 0)
    assert asked(far) == [("system", "Be brief."), ("user", "one"), ("assistant", "yes"), ("user", "two")]
    assert (far.asked[-1]["body"]["temperature"], far.asked[-1]["body"]["stream"]) == (0.0, True)
    talk.obey("/reset")
    talk.obey("/system")
    talk.obey("/model other")
    talk.say("three")
    assert (asked(far), far.asked[-1]["body"]["model"]) == ([("user", "three")], "other")


@pytest.mark.parametrize(
    ("act", "code", "message"),
    [
        (status(404, "there is no such model"), 1, "tunesmith: there is no such model\n"),
        (streams(*said("half", end=None), {"error": {"message": "the sampler died"}}), 1, "tunesmith: the sampler died\n"),
        (streams(*said("half", end=None), done=False), 1, "tunesmith: The answer broke off before its end.\n"),
        (cuts, 1, "tunesmith: The answer broke off"),
        (streams(*said("long", end="length")), 0, "tunesmith: the answer ended at its limit of tokens.\n"),
    ],
)
def test_what_goes_wrong_is_one_line_and_not_remembered(
    act: object, code: int, message: str, talk: Talk, far: FarServer, capsys: pytest.CaptureFixture[str]
) -> None:
    far.acts.append(act)  # pyright: ignore[reportArgumentType]
    assert talk.say("one") == code
    assert capsys.readouterr().err.startswith(message)
    assert bool(talk.turns[0]) == (code == 0)


def test_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    assert Talk("http://127.0.0.1:9", ["plain"], None, {}).say("one") == 3
    assert capsys.readouterr().err.startswith("tunesmith: No server answers at http://127.0.0.1:9")


def test_lines_that_a_text_holds_do_not_break_the_stream(far: FarServer) -> None:
    far.acts.append(streams(*said("a\u2028b\x85c")))
    answer = Answer("plain")
    ask(far.url.removesuffix("/v1"), [answer], [[]], {}, lambda *_: None)
    assert (answer.text, answer.reason, answer.error) == ("a\u2028b\x85c", "stop", None)


def test_two_models_have_a_conversation_each(far: FarServer, capsys: pytest.CaptureFixture[str]) -> None:
    far.asked.clear()
    talk = Talk(far.url.removesuffix("/v1"), ["plain", "nope"], None, {})
    assert talk.say("one") == 1
    told = capsys.readouterr()
    assert (told.out, told.err) == ("plain:\nyes\n\n", "tunesmith: nope: The model nope does not exist\n")
    assert ([len(turns) for turns in talk.turns], talk.obey("/model a")) == (
        [2, 0],
        "/model takes 2 names; now: plain nope.",
    )


def test_an_interrupt_keeps_what_had_come(far: FarServer) -> None:
    far.acts.append(streams(*said("one two three")))
    answer = Answer("plain")

    def interrupt(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        ask(far.url.removesuffix("/v1"), [answer], [[]], {}, interrupt)
    assert answer.text.startswith("one")
    assert (answer.reason, answer.error) == (None, None)


def test_a_model_moves_no_cursor() -> None:
    assert plain("a\x1b[2Jb\x07\r\n\tc\x9b1m") == "a[2Jb\n\tc1m"
    assert json.dumps(plain("é 漢")) == json.dumps("é 漢")
