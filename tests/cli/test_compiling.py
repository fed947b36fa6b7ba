# SPDX-License-Identifier: GPL-2.0-or-later
"""What the user sees while native code is compiled, and where it cannot be kept."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from emu.cli import compiling
from emu.machine.native import CACHE
from tests.cli.test_boot import emu, terminal

PART = "vm.handler.on_port_read."  # a function that every run needs


@pytest.fixture
def part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of a copy of the cache, which commands use."""
    assert emu("boot", "hello", "-q").returncode == 0
    assert CACHE.folder is not None
    copied = tmp_path / CACHE.folder.parent.name / CACHE.folder.name
    shutil.copytree(CACHE.folder, copied)
    monkeypatch.setenv("EMU_CACHE_DIR", str(tmp_path))
    (found,) = copied.glob(f"{PART}*.code")
    return found


def test_a_damaged_file_is_named_and_made_anew(part: Path) -> None:
    data = bytearray(part.read_bytes())
    data[500] ^= 1
    part.write_bytes(data)
    first, second = emu("boot", "hello", "-q"), emu("boot", "hello", "-q")
    assert (first.returncode, first.stderr) == (0, f"emu: {part}: damaged, compiling it again\n")
    assert (second.returncode, second.stderr, second.stdout) == (0, "", first.stdout)


def test_what_is_missing_is_compiled_with_a_line(part: Path) -> None:
    part.unlink()
    run = emu("boot", "hello", "-q")
    assert (run.returncode, run.stderr) == (0, f"emu: {compiling.COMPILING}: this takes about a minute\n")
    assert part.exists()


def test_a_terminal_shows_a_bar(part: Path) -> None:
    part.unlink()
    with terminal("boot", "hello", "-q") as tty:
        assert tty.wait() == 0
        assert tty.is_restored()
    assert compiling.COMPILING.encode() in tty.seen
    assert b"functions, about" in tty.seen


def test_another_process_is_waited_for_with_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    compiling._Display().wait()
    assert capfd.readouterr().err == f"emu: {compiling.WAITING}\n"


@pytest.mark.parametrize(("refused", "words"), [(None, "there is no home folder"), (Path("/x"), "/x cannot be written")])
def test_why_code_is_for_this_run_only(refused: Path | None, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CACHE, "is_for_this_run", True)
    monkeypatch.setattr(CACHE, "refused", refused)
    assert words in compiling._why()
