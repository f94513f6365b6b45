"""The guarded fetcher: what it fetches, and everything that it does not, over real sockets and made-up names."""

import base64
import gzip
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tunesmith.core.internet import is_public, lookup
from tunesmith.domain.ports import PictureRefused
from tunesmith.inference.pictures import GuardedPictures

pytestmark = pytest.mark.anyio

PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 40
IMAGES = {
    "image/png": PNG,
    "image/jpeg": b"\xff\xd8\xff\xe0" + b"x" * 40,
    "image/gif": b"GIF89a" + b"x" * 40,
    "image/webp": b"RIFF\x00\x00\x00\x00WEBP" + b"x" * 40,
}
NAME = "pictures.test"

Act = Callable[[BaseHTTPRequestHandler], None]


class Place(ThreadingHTTPServer):
    """Does to each path what the test says."""

    daemon_threads = True

    def __init__(self, address: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__((address, port), _Done)
        self.acts: dict[str, Act] = {}
        self.asked: list[dict[str, str]] = []
        self.over = threading.Event()

    @property
    def host(self) -> str:
        return f"{NAME}:{self.server_port}"

    def url(self, path: str) -> str:
        return f"http://{self.host}{path}"


class _Done(BaseHTTPRequestHandler):
    server: Place
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        return

    def do_GET(self) -> None:
        self.server.asked.append({"path": self.path, **{name.lower(): value for name, value in self.headers.items()}})
        self.close_connection = True
        self.server.acts[self.path](self)


def shows(content: bytes, **headers: str) -> Act:
    def act(answer: BaseHTTPRequestHandler) -> None:
        answer.send_response(200)
        for name, value in headers.items():
            answer.send_header(name.replace("_", "-"), value)
        answer.end_headers()
        answer.wfile.write(content)

    return act


def moves(where: str, status: int = 302) -> Act:
    def act(answer: BaseHTTPRequestHandler) -> None:
        answer.send_response(status)
        answer.send_header("location", where)
        answer.send_header("content-length", "0")
        answer.end_headers()

    return act


def drips(answer: BaseHTTPRequestHandler) -> None:
    answer.send_response(200)
    answer.end_headers()
    place: Any = answer.server
    while not place.over.wait(0.02):
        answer.wfile.write(PNG[:1])


def floods(answer: BaseHTTPRequestHandler) -> None:
    answer.send_response(200)
    answer.end_headers()
    answer.wfile.write(PNG)
    while True:
        answer.wfile.write(bytes(1024 * 1024))


@pytest.fixture
def place() -> Iterator[Place]:
    yield from _served(Place())


def _served(server: Place) -> Iterator[Place]:
    server.handle_error = lambda *_: None  # type: ignore[method-assign] - clients that leave early are what is tested
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()
    thread.join()


def pictures(place: Place, *, hosts: Any = (), **more: Any) -> GuardedPictures:
    return GuardedPictures(hosts=[place.host, *hosts], look_up=lambda host, port: ["127.0.0.1"], **more)


async def refused(fetcher: GuardedPictures, url: str, **more: Any) -> str:
    with pytest.raises(PictureRefused) as caught:
        await fetcher.fetch(url, **more)
    return str(caught.value)


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("said", [{}, {"content_type": "application/octet-stream"}, {"content_type": "Image/PNG; q=1"}])
async def test_an_image_is_what_its_first_bytes_say(place: Place, kind: str, said: Any) -> None:
    place.acts["/a?b=c"] = shows(IMAGES[kind], **said)
    told = await pictures(place).fetch(place.url("/a?b=c#d"))
    assert told == f"data:{kind};base64,{base64.b64encode(IMAGES[kind]).decode()}"
    [asked] = place.asked
    assert (asked["path"], asked["host"], asked["accept-encoding"]) == ("/a?b=c", place.host, "identity")
    assert "authorization" not in asked
    assert "cookie" not in asked


@pytest.mark.parametrize("kind", IMAGES)
async def test_a_data_url_is_looked_at_too(place: Place, kind: str) -> None:
    text = base64.b64encode(IMAGES[kind]).decode()
    fetcher = pictures(place)
    assert await fetcher.fetch(f"DATA:image/x;charset=a;BASE64,{text}") == f"data:{kind};base64,{text}"
    assert "none of image/png" in await refused(fetcher, "data:image/png;base64,AAAA")
    assert "none of image/png" in await refused(fetcher, "data:;base64,")
    assert "no base64" in await refused(fetcher, f"data:image/png;base64,{text}!")
    assert "no base64" in await refused(fetcher, f"data:image/png;base64,{text[:-1]}ü")
    assert "is data:image/" in await refused(fetcher, "data:image/svg+xml,<svg/>")
    assert "is data:image/" in await refused(fetcher, "data:")
    assert "larger than 44 bytes" in await refused(fetcher, f"data:image/png;base64,{text}" + "AAAA" * 9, n_max_bytes=44)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
        "169.254.169.254", "169.254.170.2", "100.64.0.1", "100.100.100.200", "192.0.0.192", "192.0.2.1", "198.18.0.1",
        "198.51.100.1", "203.0.113.1", "192.88.99.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
        "168.63.129.16",
        "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "::ffff:0:127.0.0.1",
        "64:ff9b::7f00:1", "64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b:1::808:808", "2002:7f00:1::",
        "2002:a00:1::1", "2002:808:808::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "2001:10::1", "3fff::1",
        "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "2606:4700::1%1", "fec0::1", "ff02::1", "100::1", "5f00::1",
        "localhost", "", "1.2.3", "8.8.8.8 ",
    ],
)  # fmt: skip
async def test_what_is_not_the_internet_is_not_fetched_from(place: Place, address: str) -> None:
    assert not is_public(address)
    for found in ([address], ["8.8.8.8", address], [address, "2606:4700::1111"]):
        fetcher = GuardedPictures(look_up=lambda host, port, found=found: found)
        assert "rebind.test is not on the public internet" in await refused(fetcher, "http://rebind.test/")
    assert place.asked == []


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "2a00:1450:4001::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "172.32.0.1"],
)
async def test_what_is_the_internet_may_be(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "127.0.0.1",
        "127.1",
        "0x7f.1",
        "2130706433",
        "017700000001",
        "0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "LOCALHOST.",
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_this_machine_has_no_name_that_gets_by(host: str, scheme: str) -> None:
    fetcher = GuardedPictures()  # with the system's own look-up
    told = await refused(fetcher, f"{scheme}://{host}/")
    assert "is not on the public internet" in told or "has no address" in told


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("ftp://8.8.8.8/a.png", "http or https"),
        ("file:///etc/passwd", "http or https"),
        ("gopher://8.8.8.8/", "http or https"),
        ("//8.8.8.8/a.png", "http or https"),
        ("http:///a.png", "http or https"),
        ("", "http or https"),
        ("http://me@8.8.8.8/", "no user and no password"),
        ("http://me:pw@8.8.8.8/", "no user and no password"),
        ("http://@8.8.8.8/", "no user and no password"),
        ("http://8.8.8.8\\@127.0.0.1/", "no user and no password"),
        ("http://8.8.8.8:22/", "from port 80, not 22"),
        ("https://8.8.8.8:80/", "from port 443, not 80"),
        ("http://8.8.8.8:0/", "from port 80, not 0"),
        ("http://8.8.8.8:99999/", "cannot be fetched"),
        ("http://8.8.8.8:x/", "cannot be fetched"),
        ("http://[::1/", "cannot be fetched"),
        ("http://a..b/", "is no name of a host"),
        (f"http://{'a' * 64}.test/", "is no name of a host"),
        ("http://\ud800.test/", "is no name of a host"),
        ("http://127.0.0.1\x00.test/", ": http://127.0.0.1"),
        ("http://127.0.0.1\t/", "is not on the public internet"),
    ],
)
async def test_what_is_no_url_of_an_image_is_refused(url: str, told: str) -> None:
    def look_up(host: str, port: int) -> list[str]:
        return lookup(host, port)

    assert told in await refused(GuardedPictures(look_up=look_up), url)


async def test_a_name_without_an_address_is_told() -> None:
    def look_up(host: str, port: int) -> list[str]:
        raise OSError(-2, "Name or service not known")

    assert "nowhere.test has no address (Name or service not known)" in await refused(
        GuardedPictures(look_up=look_up), "http://nowhere.test/a.png"
    )
    assert "not on the public internet" in await refused(GuardedPictures(look_up=lambda *_: []), "http://nowhere.test/")


async def test_a_name_is_looked_up_once_and_the_connection_made_there(place: Place) -> None:
    """A name that stands for another address at the second look (DNS rebinding) gains nothing."""
    other = Place("127.0.0.2", place.server_port)
    second = _served(other)
    next(second)
    place.acts["/a.png"] = shows(PNG)
    other.acts["/a.png"] = shows(IMAGES["image/gif"])
    answers = [["127.0.0.1"], ["127.0.0.2"]]
    fetcher = GuardedPictures(hosts=[place.host], look_up=lambda host, port: answers.pop(0))
    assert (await fetcher.fetch(place.url("/a.png"))).startswith("data:image/png")
    assert (len(answers), other.asked) == (1, [])
    with pytest.raises(StopIteration):
        next(second)


async def test_where_the_first_address_is_closed_the_next_one_is_tried(place: Place) -> None:
    place.acts["/a.png"] = shows(PNG)
    fetcher = GuardedPictures(hosts=[place.host], look_up=lambda host, port: ["127.0.0.3", "127.0.0.1"])
    assert (await fetcher.fetch(place.url("/a.png"))).startswith("data:image/png")
    closed = GuardedPictures(hosts=[place.host], look_up=lambda host, port: ["127.0.0.3"])
    assert "cannot be fetched" in await refused(closed, place.url("/a.png"))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed_by_hand(place: Place, status: int) -> None:
    place.acts |= {
        "/1": moves("/2", status),
        "/2": moves(f"//{place.host}/3"),
        "/3": moves(place.url("/4")),
        "/4": shows(PNG),
    }
    fetcher = pictures(place)
    assert (await fetcher.fetch(place.url("/1"))).startswith("data:image/png")
    assert [asked["path"] for asked in place.asked] == ["/1", "/2", "/3", "/4"]
    place.acts["/0"] = moves("/1")
    assert "moved more than 3 times" in await refused(fetcher, place.url("/0"))


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("http://127.0.0.1/", "127.0.0.1 is not on the public internet"),
        ("http://inner.test/", "inner.test is not on the public internet"),
        ("http://inner.test:8080/", "from port 80, not 8080"),
        ("https://[::1]/", "::1 is not on the public internet"),
        ("http://me@pictures.test/", "no user and no password"),
        ("file:///etc/passwd", "http or https"),
        ("gopher://127.0.0.1/", "http or https"),
        ("http://[", "cannot be fetched"),
        ("data:image/png;base64,AAAA", "http or https"),
    ],
)
async def test_a_redirect_leads_nowhere_that_the_url_could_not(place: Place, where: str, told: str) -> None:
    def look_up(host: str, port: int) -> list[str]:
        return {"inner.test": ["10.0.0.1"], NAME: ["127.0.0.1"]}.get(host, [host])

    place.acts["/"] = moves(where)
    fetcher = GuardedPictures(hosts=[place.host], look_up=look_up)
    assert told in await refused(fetcher, place.url("/"))
    assert len(place.asked) == 1


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (shows(b"<html>", content_type="text/html"), "is said to be text/html"),
        (shows(b"<svg/>", content_type="image/svg+xml"), "is said to be image/svg+xml"),
        (shows(b"<html>", content_type="image/png"), "none of image/png"),
        (shows(b"", content_type="image/png"), "none of image/png"),
        (shows(gzip.compress(PNG * 9), content_encoding="gzip"), "comes compressed"),
        (shows(gzip.compress(bytes(64 * 1024 * 1024)), content_encoding="gzip, gzip"), "comes compressed"),
        (floods, "larger than 1000000 bytes"),
        (moves("/", 304), "answers 304"),
        (lambda answer: answer.send_error(404), "answers 404"),
        (lambda answer: answer.wfile.write(b"HTTP/1.1 200\r\nbroken"), "cannot be fetched"),
        (lambda answer: answer.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nx"), "cannot be fetched"),
        (lambda answer: answer.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 99_999), "cannot be fetched"),
        (lambda answer: None, "cannot be fetched"),
    ],
)
async def test_a_server_that_gives_no_image_is_told(place: Place, act: Act, told: str) -> None:
    place.acts["/"] = act
    assert told in await refused(pictures(place), place.url("/"), n_max_bytes=1_000_000)


async def test_time_is_for_all_of_it(place: Place) -> None:
    place.acts |= {"/drip": drips, "/loop": drips}
    fetcher = pictures(place, longest_s=0.4)
    assert "took longer than 0.4 s" in await refused(fetcher, place.url("/drip"))
    gone = threading.Event()

    def slow(host: str, port: int) -> list[str]:
        gone.wait(30)
        return []

    assert "took longer than 0.1 s" in await refused(GuardedPictures(look_up=slow, longest_s=0.1), "http://slow.test/")
    gone.set()


async def test_a_certificate_is_for_the_name_and_not_for_the_address(place: Place) -> None:
    asked: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    place.socket = context.wrap_socket(place.socket, server_side=True)
    told = await refused(pictures(place), f"https://{place.host}/a.png")
    assert "cannot be fetched" in told
    assert asked == [NAME]


async def test_no_proxy_of_the_environment_is_used(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    place.acts["/a.png"] = shows(PNG)
    assert (await pictures(place).fetch(place.url("/a.png"))).startswith("data:image/png")
