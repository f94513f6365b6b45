"""What any blob store must do; the suite runs on every implementation."""

import errno
import hashlib
import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tunesmith.blobs.local import LocalBlobs
from tunesmith.domain.ports import Blobs

IMPLEMENTATIONS: dict[str, Callable[[Path], Blobs]] = {"local": lambda folder: LocalBlobs(folder / "blobs")}


@pytest.fixture(params=IMPLEMENTATIONS)
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    return IMPLEMENTATIONS[request.param](tmp_path)


def _read(blobs: Blobs, key: str) -> bytes:
    with blobs.open(key) as stream:
        return stream.read()


def _breaks(error: Exception) -> Iterator[bytes]:
    yield b"half"
    raise error


@pytest.mark.parametrize("content", [b"", b"x", os.urandom(3_000_000)], ids=["empty", "one", "large"])
def test_what_was_put_is_what_is_opened(blobs: Blobs, content: bytes) -> None:
    stream = io.BytesIO(content)
    stored = blobs.put("files/file-1", iter(lambda: stream.read(65_536), b""))
    assert (stored.bytes, stored.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert _read(blobs, "files/file-1") == content
    assert blobs.path("files/file-1").read_bytes() == content


def test_an_object_may_be_replaced_whole(blobs: Blobs) -> None:
    blobs.put("a", [b"first, and longer"])
    with blobs.open("a") as reading:
        blobs.put("a", [b"second"])
        assert reading.read() == b"first, and longer"
    assert _read(blobs, "a") == b"second"


def test_create_only_refuses_what_is_there_and_keeps_it(blobs: Blobs) -> None:
    blobs.put("jobs/1/MANIFEST.json", [b"one"], create_only=True)
    with pytest.raises(FileExistsError):
        blobs.put("jobs/1/MANIFEST.json", [b"two"], create_only=True)
    assert _read(blobs, "jobs/1/MANIFEST.json") == b"one"
    assert blobs.keys("jobs") == ["jobs/1/MANIFEST.json"]
    assert blobs.clear_unfinished("jobs") == 0


def test_of_many_who_create_one_succeeds(blobs: Blobs) -> None:
    won: list[bytes] = []
    together = threading.Barrier(8)

    def create(name: bytes) -> None:
        together.wait(30)
        try:
            blobs.put("x/only", [name], create_only=True)
        except FileExistsError:
            return
        won.append(name)

    threads = [threading.Thread(target=create, args=(str(number).encode(),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [_read(blobs, "x/only")] == won


@pytest.mark.parametrize("create_only", [False, True])
def test_a_put_that_breaks_leaves_nothing(blobs: Blobs, create_only: bool) -> None:
    with pytest.raises(OSError, match="No space left") as raised:
        blobs.put("files/x", _breaks(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))), create_only=create_only)
    assert raised.value.errno == errno.ENOSPC
    assert blobs.keys("files") == []
    assert blobs.clear_unfinished("files") == 0
    with pytest.raises(FileNotFoundError):
        blobs.open("files/x")


def test_a_put_that_breaks_leaves_what_was_there(blobs: Blobs) -> None:
    blobs.put("files/x", [b"whole"])
    with pytest.raises(ValueError, match="not JSONL"):
        blobs.put("files/x", _breaks(ValueError("not JSONL")))
    assert _read(blobs, "files/x") == b"whole"
    assert blobs.keys("files") == ["files/x"]


@pytest.mark.parametrize("point", ["blobs.write", "blobs.rename"])
def test_a_disk_that_fills_at_any_point_leaves_nothing(blobs: Blobs, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    monkeypatch.setenv("TUNESMITH_FAILPOINTS", f"{point}=raise")
    with pytest.raises(OSError, match="No space left"):
        blobs.put("files/x", [b"content"])
    assert blobs.keys("files") == []
    assert blobs.clear_unfinished("files") == 0
    monkeypatch.delenv("TUNESMITH_FAILPOINTS")
    assert blobs.put("files/x", [b"content"]).bytes == 7


def test_deleting_takes_one_or_all_under_a_prefix_and_absence_is_fine(blobs: Blobs) -> None:
    for key in ("jobs/1/a", "jobs/1/b/c", "jobs/10/a", "files/x"):
        blobs.put(key, [b"x"])
    blobs.delete("jobs/1/a")
    assert blobs.keys("jobs/1") == ["jobs/1/b/c"]
    blobs.delete("jobs/1")
    blobs.delete("jobs/1")
    blobs.delete("none/at/all")
    assert blobs.keys("jobs") == ["jobs/10/a"]
    assert blobs.keys("files") == ["files/x"]


def test_keys_are_sorted_and_of_the_prefix_alone(blobs: Blobs) -> None:
    for key in ("a/2", "a/10", "ab/1", "a/b/1"):
        blobs.put(key, [b"x"])
    assert blobs.keys("a") == ["a/10", "a/2", "a/b/1"]
    assert blobs.keys("a/2") == ["a/2"]
    assert blobs.keys("none") == []
    assert blobs.path("a").is_dir()


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/passwd", "a//b", "", ".", "a/./b", "a\0b", ".."])
def test_no_key_climbs_out_of_the_store(blobs: Blobs, key: str, tmp_path: Path) -> None:
    outside = tmp_path / "x"
    outside.write_text("precious")
    for act in (lambda: blobs.put(key, [b"x"]), lambda: blobs.open(key), lambda: blobs.delete(key), lambda: blobs.keys(key)):
        with pytest.raises(ValueError, match="is not a blob's key"):
            act()
    assert outside.read_text() == "precious"


def test_the_local_store_flushes_the_file_before_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    flush, replace = os.fsync, Path.replace

    def watched_flush(descriptor: int) -> None:
        order.append("folder" if Path(f"/proc/self/fd/{descriptor}").is_dir() else "file")
        flush(descriptor)

    def watched_replace(self: Path, target: Path) -> Path:
        order.append("rename")
        return replace(self, target)

    blobs = LocalBlobs(tmp_path / "blobs")
    blobs.put("files/warm", [b"x"])
    monkeypatch.setattr(os, "fsync", watched_flush)
    monkeypatch.setattr(Path, "replace", watched_replace)
    blobs.put("files/x", [b"x"])
    assert order == ["file", "rename", "folder"]
    order.clear()
    blobs.put("new/folder/x", [b"x"])
    assert order == ["folder", "folder", "file", "rename", "folder"]


def test_what_a_killed_put_left_is_cleared_and_is_no_object(tmp_path: Path) -> None:
    program = "import sys; from pathlib import Path; from tunesmith.blobs.local import LocalBlobs; "
    program += "LocalBlobs(Path(sys.argv[1])).put('files/x', [b'content'])"
    killed = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "blobs")],
        env={**os.environ, "TUNESMITH_FAILPOINTS": "blobs.rename=kill"},
        check=False,
    )
    assert killed.returncode == -9
    blobs = LocalBlobs(tmp_path / "blobs")
    assert blobs.keys("files") == []
    assert [path.suffix for path in (tmp_path / "blobs" / "files").iterdir()] == [".unfinished"]
    assert blobs.clear_unfinished("files") == 1
    assert list((tmp_path / "blobs" / "files").iterdir()) == []
    assert blobs.url == (tmp_path / "blobs").as_uri()
