"""The data folder is made, versioned, held by one server at a time, and refused with the reason."""

import os
import tempfile
from pathlib import Path

import pytest

from tunesmith.core.data_folder import SOCKET_FOLDER_BYTES, VERSION, DataFolder, FolderRefused


def test_a_folder_is_made_with_what_the_server_needs(tmp_path: Path) -> None:
    with DataFolder(tmp_path / "new" / "data") as folder:
        assert folder.path.is_absolute()
        assert sorted(path.name for path in folder.path.iterdir()) == [
            "VERSION",
            "attempts",
            "bases",
            "blobs",
            "lock",
            "run",
        ]
        assert (folder.path / "VERSION").read_text() == f"{VERSION}\n"
        assert (folder.path / "lock").read_text() == f"{os.getpid()}\n"
        assert folder.run.stat().st_mode & 0o777 == 0o700
        assert {name: (folder.path / name).stat().st_mode & 0o077 for name in ("blobs", "attempts")} == {
            "blobs": 0, "attempts": 0
        }  # fmt: skip
        (folder.path / "blobs").chmod(0o750)
    with DataFolder(tmp_path / "new" / "data") as folder:
        assert (folder.path / "blobs").stat().st_mode & 0o777 == 0o750, "as its owner wants it"


def test_it_is_opened_again_after_it_was_closed(tmp_path: Path) -> None:
    with DataFolder(tmp_path):
        pass
    with DataFolder(tmp_path) as folder:
        folder.close()
        folder.close()


def test_a_second_server_is_refused_with_the_first_ones_process(tmp_path: Path) -> None:
    told = f"in use by another server \\(process {os.getpid()}\\).*--data-dir"
    with DataFolder(tmp_path), pytest.raises(FolderRefused, match=told):
        DataFolder(tmp_path)
    with DataFolder(tmp_path):
        pass


def test_a_newer_folder_is_refused_with_both_versions(tmp_path: Path) -> None:
    (tmp_path / "VERSION").write_text(f"{VERSION + 6}\n")
    with pytest.raises(FolderRefused, match=f"has version {VERSION + 6}.*up to {VERSION}"):
        DataFolder(tmp_path)
    (tmp_path / "VERSION").write_text(f"{VERSION}\n")
    DataFolder(tmp_path).close()


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "VERSION").write_text("v2.1-beta")
    with pytest.raises(FolderRefused, match=r"VERSION should hold a whole number, not 'v2.1-beta'"):
        DataFolder(tmp_path)


def test_a_path_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderRefused, match="cannot be used"):
        DataFolder(tmp_path / "file" / "data")


def test_a_folder_with_a_file_in_the_way_is_refused_and_let_go(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("")
    with pytest.raises(FolderRefused, match="cannot be written"):
        DataFolder(tmp_path)
    (tmp_path / "blobs").unlink()
    DataFolder(tmp_path).close()


@pytest.mark.parametrize("temporary", ["/tmp", "/tmp/" + "y" * SOCKET_FOLDER_BYTES])
def test_sockets_lie_elsewhere_when_the_path_is_too_long_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temporary: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", temporary)
    deep = tmp_path / ("x" * SOCKET_FOLDER_BYTES)
    with DataFolder(deep) as folder:
        run = folder.run
        assert len(os.fsencode(run)) <= SOCKET_FOLDER_BYTES
        assert run.stat().st_mode & 0o777 == 0o700
        (run / "left.sock").touch()
    assert (run / "left.sock").exists()
    with DataFolder(deep) as folder:
        assert folder.run == run
        (run / "left.sock").unlink()
    assert not run.exists()
    run.symlink_to(tmp_path)
    with pytest.raises(FolderRefused, match="belongs to somebody else"):
        DataFolder(deep)
    run.unlink()


def test_a_disk_that_is_full_when_the_version_is_written_is_told_and_the_folder_can_be_used_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESMITH_FAILPOINTS", "folder.version=raise")
    with pytest.raises(FolderRefused, match="cannot be written: No space left on device"):
        DataFolder(tmp_path)
    monkeypatch.delenv("TUNESMITH_FAILPOINTS")
    with DataFolder(tmp_path):
        assert (tmp_path / "VERSION").read_text() == f"{VERSION}\n"
