# SPDX-License-Identifier: GPL-2.0-or-later
"""Disk images of the guest OS on the host: made, read, and every kind of fault noticed."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from emu.cli import main
from emu.diskimage import layout
from emu.diskimage.check import check
from emu.diskimage.image import Image
from emu.diskimage.layout import BLOCK
from emu.diskimage.make import make
from emu.units import MIB

ROOT = Path(__file__).resolve().parents[2]
HEADER = ROOT / "guests" / "os" / "kernel" / "format.h"
PARTITION = layout.FIRST_BLOCK * BLOCK


def folder_with_files(path: Path) -> dict[str, bytes]:
    """Files of sizes around every limit of an inode's pointers, and a folder in a folder."""
    rng = random.Random(1)
    sizes = [0, 1, BLOCK, BLOCK + 1, layout.DIRECT * BLOCK, layout.DIRECT * BLOCK + 1, 100 * BLOCK + 17]
    files = {f"f{number}": rng.randbytes(size) for number, size in enumerate(sizes)} | {"inner/deep/name": b"here"}
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return files


@pytest.fixture
def image(tmp_path: Path) -> tuple[Path, dict[str, bytes]]:
    files = folder_with_files(tmp_path / "in")
    make(tmp_path / "disk.img", 2 * MIB, MIB, tmp_path / "in")
    return tmp_path / "disk.img", files


def test_files_come_back(image: tuple[Path, dict[str, bytes]]) -> None:
    path, files = image
    with Image(path) as opened:
        found = {name[1:]: inode for name, _, inode in opened.walk() if inode.kind == layout.FILE}
        assert {name: b"".join(opened.contents(inode)) for name, inode in found.items()} == files
        report = check(opened)
    assert (report.faults, report.notes, report.files, report.directories) == ([], [], len(files), 3)


def test_a_file_with_twice_indirect_blocks(tmp_path: Path) -> None:
    data = random.Random(2).randbytes((layout.DIRECT + layout.POINTERS + 30) * BLOCK + 5)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "big").write_bytes(data)
    make(tmp_path / "disk.img", 8 * MIB, 0, tmp_path / "in")
    with Image(tmp_path / "disk.img") as opened:
        assert not check(opened).faults
        assert b"".join(opened.contents(opened.find("/big")[1])) == data


def test_the_same_arguments_give_the_same_bytes(image: tuple[Path, dict[str, bytes]], tmp_path: Path) -> None:
    make(tmp_path / "again.img", 2 * MIB, MIB, tmp_path / "in")
    assert (tmp_path / "again.img").read_bytes() == image[0].read_bytes()


def test_constants_are_those_of_the_kernel() -> None:
    text = HEADER.read_text(encoding="utf-8")
    numbers = {name: int(value, 0) for name, value in re.findall(r"^#define FS_(\w+) (\w+)", text, re.MULTILINE)}
    ours = {
        "MAGIC": layout.MAGIC,
        "VERSION": layout.VERSION,
        "INODE_BYTES": layout.INODE_BYTES,
        "DIRECT": layout.DIRECT,
        "POINTERS": layout.POINTERS,
        "ENTRY_BYTES": layout.ENTRY_BYTES,
        "LOG_MAGIC": layout.LOG_MAGIC,
        "LOG_CAPACITY": layout.LOG_CAPACITY,
    }
    assert numbers == ours
    fields = re.findall(
        r"\w+(?=[;,])", re.search(r"struct superblock \{(.*?)\};", re.sub(r"/\*.*?\*/", "", text), re.DOTALL).group(1)
    )  # type: ignore[union-attr]
    assert fields == list(layout.Superblock.__dataclass_fields__)


def change(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(PARTITION + at)
        file.write(data)


def change_inode(path: Path, number: int, edit: Callable[[layout.Inode], object]) -> None:
    with Image(path) as opened:
        inode, first = opened.inode(number), opened.super.inode_first
    edit(inode)
    change(path, first * BLOCK + number * layout.INODE_BYTES, inode.pack())


FAULTS: dict[str, Callable[[layout.Inode], object]] = {
    "links": lambda inode: setattr(inode, "links", 2),
    "unknown kind": lambda inode: setattr(inode, "kind", 7),
    "counts": lambda inode: setattr(inode, "blocks", inode.blocks + 1),
    "outside of the data blocks": lambda inode: inode.direct.__setitem__(3, 2),
    "has too": lambda inode: inode.direct.__setitem__(3, inode.direct[2]),
    "ends before it": lambda inode: setattr(inode, "size", 100),
    "in use by nobody": lambda inode: inode.direct.__setitem__(3, 0),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_an_inode_is_noticed(fault: str, image: tuple[Path, dict[str, bytes]]) -> None:
    path, _ = image
    with Image(path) as opened:
        number, _ = opened.find("/f4")
    change_inode(path, number, FAULTS[fault])
    with Image(path) as opened:
        faults = check(opened).faults
    assert any(fault in line for line in faults), faults


def test_a_lost_block_and_a_lost_name_are_noticed(image: tuple[Path, dict[str, bytes]]) -> None:
    path, _ = image
    with Image(path) as opened:
        block = opened.find("/f4")[1].direct[0]
        bitmap = bytearray(opened.block(opened.super.bitmap_first))
        root = opened.inode(layout.ROOT).direct[0]
        bitmap_first = opened.super.bitmap_first
    bitmap[block // 8] &= ~(1 << block % 8)
    change(path, bitmap_first * BLOCK, bytes(bitmap))
    change(path, root * BLOCK, bytes(layout.ENTRY_BYTES))
    with Image(path) as opened:
        faults = check(opened).faults
    assert any("free in the bitmap" in line for line in faults)
    assert any("1 links, 0 names" in line for line in faults)


def test_a_committed_log_is_replayed_and_another_is_not(image: tuple[Path, dict[str, bytes]]) -> None:
    path, _ = image
    with Image(path) as opened:
        at = opened.super
        block = opened.super.inode_first
        table = bytearray(opened.block(block))
    empty = replace(layout.Inode(), kind=layout.FILE)  # an orphan
    number = layout.INODES_IN_BLOCK - 1
    table[number * layout.INODE_BYTES :] = empty.pack()
    header = b"".join(word.to_bytes(4, "little") for word in (layout.LOG_MAGIC, 1, layout.log_checksum([block]), block))
    change(path, (at.log_first + 1) * BLOCK, bytes(table))
    change(path, at.log_first * BLOCK, header)
    with Image(path) as opened:
        report = check(opened)
        assert opened.replayed == 1
    assert report.notes == [f"inode {number}: no name any more, freed at the next mount"]
    change(path, at.log_first * BLOCK + 8, b"\0\0\0\0")
    with Image(path) as opened:
        assert (opened.replayed, check(opened).notes) == (0, [])


def test_random_damage_never_ends_in_a_traceback(image: tuple[Path, dict[str, bytes]]) -> None:
    path, _ = image
    whole = path.read_bytes()
    rng = random.Random(3)
    noticed = 0
    with Image(path) as opened:
        root = opened.inode(layout.ROOT).direct[0]
        at = opened.super
    # What is in use of the bitmap, the inodes, the root directory; and the log.
    places = [(at.bitmap_first * BLOCK, 40), (at.inode_first * BLOCK, 12 * layout.INODE_BYTES), (root * BLOCK, 512), (BLOCK, 64)]
    for _ in range(60):
        path.write_bytes(whole)
        for _ in range(rng.randrange(1, 6)):
            first, length = rng.choice(places)
            change(path, first + rng.randrange(length), rng.randbytes(rng.randrange(1, 5)))
        with Image(path) as opened:
            noticed += bool(check(opened).faults)
    assert noticed > 20


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["check", "nowhere.img"], "nowhere.img"),
        (["check", "text"], "no partition"),
        (["check", "empty"], "an empty file is no disk image"),
        (["check", "short.img"], "ends before its file system does"),
        (["make", "disk.img"], "is there already"),
        (["make", "new.img", "--size", "1K"], "at least 1M"),
        (["make", "new.img", "--size", "3G"], "more than 2G"),
        (["make", "new.img", "--size", "huge"], "file system size"),
        (["make", "new.img", "--from", "nowhere"], "not a folder"),
        (["make", "new.img", "--size", "1M", "--from", "large"], "too small for the files"),
        (["make", "no/such/folder.img"], "no/such"),
        (["copy", "disk.img", "/nothing", "out"], "no '/nothing' in it"),
        (["copy", "disk.img", "/inner", "out"], "is a directory"),
    ],
)
def test_wrong_input_is_a_line(
    arguments: list[str],
    says: str,
    image: tuple[Path, dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = image[0].parent
    monkeypatch.chdir(folder)
    (folder / "text").write_text("hello" * 1000)
    (folder / "empty").touch()
    (folder / "short.img").write_bytes(image[0].read_bytes()[:MIB])
    (folder / "large").mkdir()
    (folder / "large" / "file").write_bytes(bytes(2 * MIB))
    assert main(["disk", *arguments]) not in (0, None)
    captured = capfd.readouterr()
    assert captured.err.startswith("emu: ")
    assert says in captured.err
    assert captured.err.count("\n") == 1
    assert not list(folder.glob("*.new"))


def test_the_command_makes_checks_lists_and_copies(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files = folder_with_files(tmp_path / "in")
    image = str(tmp_path / "disk.img")
    assert main(["disk", "make", image, "--size", "2M", "--from", str(tmp_path / "in")]) == 0
    assert main(["disk", "check", image]) == 0
    assert main(["disk", "list", image]) == 0
    assert main(["disk", "copy", image, "/f6", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out").read_bytes() == files["f6"]
    output = capfd.readouterr().out
    assert f"{len(files)} files, 3 directories" in output
    assert "/inner/deep/name" in output
    change_inode(Path(image), 2, lambda inode: setattr(inode, "links", 9))
    assert main(["disk", "check", image]) == 1
    assert main(["disk", "make", image, "--size", "2M", "--force"]) == 0
    assert main(["disk", "check", image]) == 0
