"""Files that are replaced as a whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from emu.replacing import can_be_replaced, replacing


def test_a_file_is_replaced_when_all_of_it_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old and longer")
    (tmp_path / f"a.{os.getpid()}.new").write_bytes(b"what a killed process left, far longer than what comes")
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old and longer"
    assert path.read_bytes() == b"new"
    assert [found.name for found in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_goes_wrong_leaves_it_as_it_was(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def write_half() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_bytes() == b"old"
    assert [found.name for found in tmp_path.iterdir()] == ["a"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "a").write_bytes(b"old")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "far" / "a")
    with replacing(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert (tmp_path / "far" / "a").read_bytes() == b"new"


def test_what_is_no_regular_file_is_never_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, Path("/dev/null")):
        assert not can_be_replaced(path)
        with pytest.raises(OSError, match="not a regular file"), replacing(path):
            pass
    assert pipe.is_fifo()
    assert Path("/dev/null").is_char_device()


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.mark.parametrize("mask", [0o000, 0o027, 0o077])
def test_permissions(tmp_path: Path, mask: int) -> None:
    """A new file's are as the umask leaves them, one that takes a place has those of the file before; a private one is its owner's alone."""
    before = os.umask(mask)
    try:
        new, private = tmp_path / "new", tmp_path / "private"
        with replacing(new) as file:
            file.write(b"x")
        assert mode_of(new) == 0o666 & ~mask
        for mode in (0o640, 0o666, 0o400, 0o755):
            new.chmod(mode)
            with replacing(new):
                beside = next(path for path in tmp_path.iterdir() if path.suffix == ".new")
                assert mode_of(beside) == mode
            assert mode_of(new) == mode
            private.unlink(missing_ok=True)
            private.touch()
            private.chmod(mode)
            with replacing(private, is_private=True):
                beside = next(path for path in tmp_path.iterdir() if path.suffix == ".new")
                assert mode_of(beside) == 0o600
            assert mode_of(private) == 0o600
    finally:
        os.umask(before)


def test_links_in_a_circle(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.symlink_to(other)
    other.symlink_to(one)
    with replacing(one) as file:
        file.write(b"new")
    assert b"new" in (one.read_bytes(), other.read_bytes())


def test_two_processes_at_once(tmp_path: Path) -> None:
    """Each file is whole; the last to end stays."""
    path = tmp_path / "a"
    program = "import sys, pathlib; from emu.replacing import replacing\nwith replacing(pathlib.Path(sys.argv[1])) as f: f.write(b'second')"
    with replacing(path) as file:
        file.write(b"first, ")
        subprocess.run([sys.executable, "-c", program, str(path)], check=True)
        assert path.read_bytes() == b"second"
        file.write(b"and longer")
    assert path.read_bytes() == b"first, and longer"
    assert [found.name for found in tmp_path.iterdir()] == ["a"]
