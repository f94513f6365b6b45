import json
import os
import queue

import pytest

from tunesmith.core.channel import Report
from tunesmith.core.clock import SystemClock
from tunesmith.supervisor.channel import Channel
from tunesmith.supervisor.spool import BATCH, Forwarder, Spool, is_urgent, unsent
from tunesmith.supervisor.watchdog import Watchdog


@pytest.fixture
def open_spool(tmp_path):
    """Return a function that opens the spool of the test's folder; a supervisor keeps its own until it exits."""
    made = []

    def make():
        made.append(Spool(str(tmp_path)))
        return made[-1]

    yield make
    for spool in made:
        os.close(spool._file)
        os.close(spool._mark)


def line(number, kind="metrics"):
    return Report(kind, "j", 1, f"s{number}", 1.0, {"step": number}).to_json().encode()


def numbers(reports):
    return [report.data["step"] for report in reports]


def test_what_is_taken_is_not_sent_again_even_after_a_restart(tmp_path, open_spool):
    spool = open_spool()
    spool.append([line(n) for n in range(5)])
    lines, mark = spool.batch()
    assert [json.loads(text)["data"]["step"] for text in lines] == [0, 1, 2, 3, 4]
    assert numbers(unsent(str(tmp_path))) == [0, 1, 2, 3, 4]
    spool.taken(mark)
    spool.append([line(5)])
    assert numbers(unsent(str(tmp_path))) == [5]
    assert [json.loads(text)["data"]["step"] for text in spool.batch()[0]] == [5]
    assert not spool.drain(0.01)
    spool.taken(spool.batch()[1])
    assert spool.drain(0.01)
    assert unsent(str(tmp_path)) == []


def test_a_batch_is_bounded_and_lines_may_be_long(open_spool):
    spool = open_spool()
    long = Report("message", "j", 1, "m", 1.0, {"step": 0, "message": "x" * 200_000}).to_json().encode()
    spool.append([long, *(line(n) for n in range(1, 2 * BATCH))])
    sizes = []
    while lines := spool.batch()[0]:
        assert all(json.loads(text) for text in lines)
        sizes.append(len(lines))
        spool.taken(spool.batch()[1])
    assert sizes == [BATCH, BATCH]


def test_a_torn_or_foreign_line_does_not_hide_the_others(tmp_path, open_spool):
    open_spool().append([line(1), b"not json", b'{"version":99}', line(2)])
    with (tmp_path / "spool.jsonl").open("ab") as file:
        file.write(line(3)[:20])
    assert numbers(unsent(str(tmp_path))) == [1, 2]


def test_no_spool_nothing_unsent(tmp_path):
    assert unsent(str(tmp_path)) == []


@pytest.mark.parametrize(
    ("text", "urgent"),
    [(line(1), False), (line(1, "finished"), True), (line(1, "checkpoint"), True), (b"garbage", False), (b"[1]", False)],
)
def test_which_reports_wait_for_no_batch(text, urgent):
    assert is_urgent(text) is urgent


def test_a_full_disk_is_told_to_whoever_appends(open_spool, monkeypatch):
    monkeypatch.setenv("TUNESMITH_FAILPOINTS", "spool.append=raise")
    with pytest.raises(OSError, match="No space left"):
        open_spool().append([line(1)])


def test_the_forwarder_is_patient_orderly_and_stops_when_refused(open_spool, server, socket_path, eventually):
    server.status = 500
    spool, causes, wishes = open_spool(), queue.Queue(), []
    channel = Channel(socket_path, job="j", attempt=1, token="secret")
    Forwarder(spool, channel, SystemClock(), on_desired=wishes.append, on_over=causes.put).start()
    spool.append([line(n) for n in range(100)])
    spool.append([line(100, "finished")])
    assert not spool.drain(0.3)
    server.status = 200
    assert spool.drain(20)
    assert [report["data"]["step"] for report in server.reports] == list(range(101))
    assert set(wishes) == {"run"}
    server.status = 410
    spool.append([line(101)])
    assert causes.get(timeout=20) == "refused"


def beat(socket_path, *, folder=".", silence_limit_s=None):
    causes, wishes = queue.Queue(), []
    channel = Channel(socket_path, job="j", attempt=1, token="secret")
    watchdog = Watchdog(
        channel,
        SystemClock(),
        folder=str(folder),
        silence_limit_s=silence_limit_s,
        on_desired=wishes.append,
        on_over=causes.put,
        beat_s=0.02,
    )
    watchdog.start()
    return watchdog, causes, wishes


def test_the_watchdog_beats_until_it_is_ended(server, socket_path, eventually):
    server.desired = "pause"
    watchdog, causes, wishes = beat(socket_path)
    eventually(lambda: server.n_beats > 3, "beats")
    watchdog.end()
    watchdog.join(20)
    assert not watchdog.is_alive()
    assert set(wishes) == {"pause"}
    assert causes.empty()


def test_the_watchdog_tells_a_refusal(server, socket_path):
    server.status = 410
    watchdog, causes, wishes = beat(socket_path)
    assert causes.get(timeout=20) == "refused"
    watchdog.join(20)
    assert wishes == []


def test_silence_is_borne_without_a_limit_and_ends_with_one(socket_path):
    patient, causes, _ = beat(socket_path)
    with pytest.raises(queue.Empty):
        causes.get(timeout=0.5)
    patient.end()
    _, causes, _ = beat(socket_path, silence_limit_s=0.1)
    assert causes.get(timeout=20) == "lease_expired"


def test_a_silent_server_whose_data_folder_was_removed_is_not_waited_for(socket_path, tmp_path):
    _, causes, _ = beat(socket_path, folder=tmp_path / "gone")
    assert causes.get(timeout=20) == "folder_removed"
