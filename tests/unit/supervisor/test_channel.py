import socket
import threading

import pytest

from tunesmith.supervisor.channel import Away, Channel, Refused, Unreachable


@pytest.fixture
def say(socket_path):
    """Return a function that answers one connection with bytes of the test's choice and keeps what was asked."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(socket_path)
    listener.listen(8)
    asked = []

    def answer(text):
        def serve():
            connection, _ = listener.accept()
            with connection:
                asked.append(connection.recv(65536))
                connection.sendall(text)

        threading.Thread(target=serve, daemon=True).start()
        return asked

    yield answer
    listener.close()


@pytest.fixture
def channel(socket_path):
    return Channel(socket_path, job="ftjob-x", attempt=3, token="secret", timeout_s=20)


def test_a_report_is_one_plain_request(say, channel):
    asked = say(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{"desired":"pause"}')
    assert channel.send([b'{"a":1}', b'{"b":2}']) == "pause"
    head, _, body = asked[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /internal/v1/attempts/ftjob-x/3/reports HTTP/1.1\r\n")
    assert b"Authorization: Bearer secret" in head
    assert body == b'{"version":1,"reports":[{"a":1},{"b":2}]}'
    assert f"Content-Length: {len(body)}".encode() in head


def test_a_heartbeat(say, channel):
    asked = say(b'HTTP/1.1 200 OK\r\n\r\n{"desired":"run"}')
    assert channel.beat() == "run"
    assert asked[0].startswith(b"POST /internal/v1/attempts/ftjob-x/3/heartbeat ")


@pytest.mark.parametrize("status", [400, 403, 404, 410])
def test_a_refusal_is_final(say, channel, status):
    say(f"HTTP/1.1 {status} No\r\n\r\nfenced".encode())
    with pytest.raises(Refused, match=f"{status} fenced"):
        channel.beat()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 Oh\r\n\r\n", b"HTTP/1.1 503 Later\r\n\r\n{}", b"", b"garbage", b"HTTP/1.1 200 OK\r\n\r\nnot json",
        b"HTTP/1.1 200 OK\r\n\r\n{}", b"HTTP/1.1 200 OK\r\n\r\n[]",
    ],
)  # fmt: skip
def test_anything_else_may_be_tried_again(say, channel, answer):
    say(answer)
    with pytest.raises(Unreachable):
        channel.beat()


def test_nobody_there(channel, socket_path):
    with pytest.raises(Away, match="No such file"):
        channel.send([])
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(socket_path))
        with pytest.raises(Away, match="refused"):
            channel.send([])
