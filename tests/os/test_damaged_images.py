# SPDX-License-Identifier: GPL-2.0-or-later
"""`emu disk` on images that are damaged, or none: a line that says what and where, soon, and nothing of the host's is touched."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from emu.cli import main
from emu.diskimage import layout
from emu.diskimage.image import Image
from emu.diskimage.layout import BLOCK, Inode
from emu.diskimage.make import make
from emu.units import GIB, MIB

PARTITION = layout.FIRST_BLOCK * BLOCK
FILE_BYTES = (layout.DIRECT + 3) * BLOCK + 5
BAD = 66


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """/a/b/file and /name, 23 pages and a bit long."""
    (tmp_path / "in" / "a" / "b").mkdir(parents=True)
    data = random.Random(1).randbytes(FILE_BYTES)
    for name in ("a/b/file", "name"):
        (tmp_path / "in" / name).write_bytes(data)
    make(tmp_path / "disk.img", 2 * MIB, 0, tmp_path / "in")
    return tmp_path / "disk.img"


def put(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(PARTITION + at)
        file.write(data)


def find(path: Path, name: str) -> Inode:
    with Image(path) as opened:
        return opened.find(name)[1]


def put_inode(path: Path, inode: Inode) -> None:
    with Image(path) as opened:
        first = opened.super.inode_first
    put(path, first * BLOCK + inode.number * layout.INODE_BYTES, inode.pack())


def change(path: Path, name: str, **fields: object) -> None:
    inode = find(path, name)
    for field, value in fields.items():
        setattr(inode, field, value)
    put_inode(path, inode)


def put_entry(path: Path, directory: str, place: int, number: int, name: bytes) -> None:
    put(path, find(path, directory).direct[0] * BLOCK + place * layout.ENTRY_BYTES, layout.pack_entry(number, name))


def cycle(path: Path) -> None:
    put_entry(path, "/a/b", 1, find(path, "/a").number, b"loop")


def two_names(path: Path) -> None:
    put_entry(path, "/", 2, find(path, "/a/b").number, b"again")


def pointers_to_themselves(path: Path) -> None:
    table = find(path, "/name").indirect
    put(path, table * BLOCK, table.to_bytes(4, "little") * layout.POINTERS)
    change(path, "/name", twice_indirect=table)


def one_block_everywhere(path: Path) -> None:
    """A million pages of one block: 4 GiB from a few."""
    inode = find(path, "/name")
    put(path, inode.indirect * BLOCK, inode.direct[0].to_bytes(4, "little") * layout.POINTERS)
    put(path, inode.direct[1] * BLOCK, inode.indirect.to_bytes(4, "little") * layout.POINTERS)
    change(path, "/name", twice_indirect=inode.direct[1], size=layout.MAX_PAGES * BLOCK, direct=[0] * layout.DIRECT)


DAMAGE: dict[str, tuple[Callable[[Path], object], str, str]] = {  # what is done, what `check` says, what `list` or `copy` says
    "cycle": (cycle, "directory 2 has another name", "a cycle: '/a/b/loop' is '/a' again (inode 2)"),
    "two names": (two_names, "has another name", "two names: "),
    "directory of 2^62 bytes": (
        lambda path: change(path, "/", size=1 << 62),
        f"inode 1: a directory of {1 << 62} bytes",
        f"damaged: inode 1: a directory of {1 << 62} bytes",
    ),
    "file of 2^62 bytes": (
        lambda path: change(path, "/name", size=1 << 62),
        f"a file of {1 << 62} bytes",
        f"a file of {1 << 62} bytes",
    ),
    "block beyond": (
        lambda path: change(path, "/name", direct=[1 << 31] * layout.DIRECT),
        f"page 0 is block {1 << 31}, outside of the data blocks",
        f"page 0 is block {1 << 31}, outside of the data blocks",
    ),
    "directory block beyond": (
        lambda path: change(path, "/a", direct=[1 << 31] * layout.DIRECT),
        f"page 0 is block {1 << 31}, outside",
        f"damaged: inode 2: page 0 is block {1 << 31}, outside of the data blocks",
    ),
    "pointers beyond": (
        lambda path: change(path, "/name", indirect=0xFFFF_FFFF),
        "the block of pointers of page 20 and on is block 4294967295, outside",
        "the block of pointers of page 20 and on is block 4294967295, outside",
    ),
    "pointers to themselves": (pointers_to_themselves, "which inode 5 has too", "which is in use twice"),
    "one block everywhere": (one_block_everywhere, "which inode 5 has too", "which is in use twice"),
    "an inode beyond": (
        lambda path: put_entry(path, "/a", 0, 0xFFFF_FFFF, b"b"),
        "names inode 4294967295, which is free",
        "inode 4294967295 is named, of 128",
    ),
}


def run(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["disk", *map(str, arguments)])
    said = capfd.readouterr()
    assert said.err.count("\n") == (status not in (0, 1))
    return status, said.out, said.err


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(damage: str, image: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    do, fault, error = DAMAGE[damage]
    do(image)
    out = tmp_path / "out"
    out.write_text("precious")
    status, said, _ = run(capfd, "check", image)
    assert (status, fault in said) == (1, True), said
    errors = [run(capfd, "list", image), run(capfd, "copy", image, "/name", out, "--force")]
    assert any(status == BAD and said.startswith(f"emu: {image}: damaged: ") and error in said for status, _, said in errors), (
        errors
    )
    assert all(status in (0, BAD) for status, _, _ in errors)
    if errors[1][0]:
        assert out.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk.img", "in", "out"]


def test_what_comes_before_the_damage_is_listed(image: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cycle(image)
    _, said, _ = run(capfd, "list", image)
    assert [line.split()[-1] for line in said.splitlines()] == ["/a/", "/a/b/", "/a/b/file"]


def test_names_drive_no_terminal(image: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    number = find(image, "/name").number
    put_entry(image, "/", 1, number, b"\x1b[2J\nx\xff")
    assert "/\\x1b[2J\\nx\\xff\n" in run(capfd, "list", image)[1]
    assert run(capfd, "check", image)[0] == 0
    assert run(capfd, "copy", image, "/\x1b[2J\nx\udcff", tmp_path / "out")[0] == 0
    assert (tmp_path / "out").stat().st_size == FILE_BYTES
    put_entry(image, "/", 1, number, b"../../out\x1b[2J")
    status, said, _ = run(capfd, "check", image)
    assert (status, "\x1b" in said, "with a slash" in said) == (1, False, True)
    put_entry(image, "/", 1, number, b"x" * layout.NAME_BYTES)
    assert "too long" in run(capfd, "check", image)[1]


def test_holes_stay_holes(image: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A file of 4 GiB with one block."""
    inode = find(image, "/name")
    change(image, "/name", size=layout.MAX_PAGES * BLOCK, direct=[inode.direct[0]] + [0] * (layout.DIRECT - 1), indirect=0)
    assert run(capfd, "copy", image, "/name", tmp_path / "out")[0] == 0
    status = (tmp_path / "out").stat()
    assert status.st_size == layout.MAX_PAGES * BLOCK
    assert status.st_blocks * 512 < MIB
    with Image(image) as opened:
        assert sum(map(len, opened.contents(opened.find("/name")[1]))) == status.st_size


def test_a_disk_full_of_noise_has_an_end(image: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Every inode is something, and every pointer leads somewhere."""
    with Image(image) as opened:
        at = opened.super
    rng = random.Random(2)
    for number in range(1, at.inodes):
        data = list(rng.choices(range(at.data_first, at.blocks), k=layout.DIRECT + 2))
        kind = layout.DIRECTORY if number == 1 else rng.choice((layout.FILE, layout.DIRECTORY))
        put_inode(image, Inode(kind, 1, rng.getrandbits(31), 5, data[2:], data[0], data[1], number))
    put(image, at.data_first * BLOCK, rng.randbytes((at.blocks - at.data_first) * BLOCK))
    status, said, _ = run(capfd, "check", image)
    assert status == 1
    assert said.splitlines()[-2].endswith(" more")
    assert len(said.splitlines()) < 1100
    assert run(capfd, "list", image)[0] == BAD


def sparse(path: Path) -> None:
    """2 TiB without an end in sight, and a partition that has them all."""
    record = layout.pack_boot_record([layout.Partition(layout.PARTITION_FILES, layout.FIRST_BLOCK, (1 << 29) - 17)])
    path.write_bytes(record)
    os.truncate(path, 2048 * GIB)
    put(path, 0, layout.Superblock.for_size((1 << 29) - 17).pack())


def of_no_blocks(path: Path) -> None:
    path.write_bytes(layout.pack_boot_record([layout.Partition(layout.PARTITION_FILES, 1, 1)]) * 100)


def log_leads_out(path: Path) -> None:
    with Image(path) as opened:
        first = opened.super.log_first
    homes = [1 << 30]
    put(
        path,
        first * BLOCK,
        b"".join(word.to_bytes(4, "little") for word in (layout.LOG_MAGIC, 1, layout.log_checksum(homes), *homes)),
    )


OTHERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "fifo": (lambda path: (path.unlink(), os.mkfifo(path)), "not a regular file"),
    "folder": (lambda path: (path.unlink(), path.mkdir()), "a folder"),
    "device": (lambda path: (path.unlink(), path.symlink_to("/dev/zero")), "not a regular file"),
    "missing": (Path.unlink, "no such file"),
    "empty": (lambda path: os.truncate(path, 0), "an empty file"),
    "one byte": (lambda path: os.truncate(path, 1), "no partition"),
    "a sector": (lambda path: os.truncate(path, 512), "ends before its file system does"),
    "truncated": (lambda path: os.truncate(path, MIB), "ends before its file system does"),
    "another format": (lambda path: path.write_bytes(b"QFI\xfb" + bytes(MIB)), "no partition"),
    "sparse": (sparse, "damaged: the superblock tells of 536870895 blocks"),
    "no blocks": (of_no_blocks, "damaged: a partition of 1 blocks"),
    "superblock": (lambda path: put(path, 12, b"\xff\xff\xff\xff"), "damaged: the superblock does not describe"),
    "log": (log_leads_out, f"damaged: the log changes block {1 << 30}"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_what_is_no_image_is_refused(other: str, image: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    do, error = OTHERS[other]
    do(image)
    for command in (["check", image], ["list", image], ["copy", image, "/name", tmp_path / "out"]):
        status, said, complaint = run(capfd, *command)
        assert (status, said) == (BAD, "")
        assert complaint.startswith(f"emu: {image}: ")
        assert error in complaint
    assert not (tmp_path / "out").exists()


def test_folders_too_deep_for_the_guest(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "in"
    (folder / "/".join("d" * 128)).mkdir(parents=True)
    status, _, complaint = run(capfd, "make", tmp_path / "disk.img", "--size", "4M", "--from", folder)
    assert (status, "more than 255 bytes" in complaint) == (2, True)


def test_a_name_that_is_no_text(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / os.fsdecode(b"caf\xe9")).write_bytes(b"x")
    assert run(capfd, "make", tmp_path / "disk.img", "--size", "2M", "--from", tmp_path / "in")[0] == 0
    assert "/caf\\xe9\n" in run(capfd, "list", tmp_path / "disk.img")[1]
