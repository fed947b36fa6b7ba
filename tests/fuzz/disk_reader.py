# SPDX-License-Identifier: GPL-2.0-or-later
"""Disk images of the guest's file system (`emu.diskimage`): checked, listed, and every file copied out."""

from __future__ import annotations

import contextlib
import functools
import random
import tempfile
from pathlib import Path

from emu.diskimage import layout
from emu.diskimage.check import check
from emu.diskimage.image import Image, escaped
from emu.diskimage.layout import BLOCK, Inode
from emu.diskimage.make import make as make_image
from emu.errors import BadImageError
from emu.units import MIB

START = layout.FIRST_BLOCK * BLOCK  # of the partition
INODES = 16  # that a change is made to: those in use, and a few more
SIZES = (
    0,
    1,
    BLOCK - 1,
    BLOCK,
    21 * BLOCK,
    1 << 20,
    layout.MAX_PAGES * BLOCK,
    layout.MAX_PAGES * BLOCK + 1,
    1 << 40,
    1 << 62,
    (1 << 64) - 1,
)
NAMES = (
    b"",
    b".",
    b"..",
    b"../../etc/passwd",
    b"/",
    b"\x1b[2J",
    b"\xff\xfe",
    b"a\0b",
    b"\n",
    b"n" * layout.NAME_BYTES,
    b"name",
    b"sub",
)
FILES = {"empty": 0, "name": 5000, "large": 22 * BLOCK, "sub/inner/deep": 100, "sub/other": 30 * BLOCK + 1}


@functools.cache
def whole() -> bytes:
    """A valid image of 1 MiB with a few files."""
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, size) in enumerate(FILES.items()):
            path = Path(folder, "in", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes([number + 1]) * size)
        make_image(Path(folder, "image"), MIB, 64 << 10, Path(folder, "in"))
        return Path(folder, "image").read_bytes()


@functools.cache
def superblock() -> layout.Superblock:
    """Of that image."""
    return layout.Superblock.unpack(whole()[START : START + BLOCK])


def seeds() -> list[bytes]:
    """One is enough: `make` does the rest."""
    return [whole()]


def make(rng: random.Random) -> bytes:
    """The image with a few things changed, each in a way that means something."""
    image = bytearray(whole())
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        rng.choice((_inode, _inode, _inode, _entry, _entry, _pointers, _pointers, _superblock, _boot_record, _log, _noise))(
            image, rng
        )
    if rng.randrange(40) == 0:
        del image[rng.randrange(len(image)) :]
    return bytes(image)


def _word(rng: random.Random) -> int:
    return rng.choice((0, 1, 2, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, rng.getrandbits(32), rng.randrange(256)))


def _block(rng: random.Random) -> int:
    """Of the data, mostly."""
    at = superblock()
    return rng.choice(
        (rng.randrange(at.data_first, at.data_first + 70), rng.randrange(at.blocks), at.blocks, at.data_first - 1, _word(rng))
    )


def _put(image: bytearray, at: int, data: bytes) -> None:
    image[at : at + len(data)] = data[: max(0, len(image) - at)]


def _inode(image: bytearray, rng: random.Random) -> None:
    number = rng.randrange(1, INODES)
    at = START + superblock().inode_first * BLOCK
    inode = Inode.unpack(bytes(image[at : at + BLOCK]), number)
    field = rng.choice(("kind", "links", "size", "blocks", "direct", "direct", "indirect", "twice_indirect"))
    if field == "direct":
        inode.direct[rng.randrange(layout.DIRECT)] = _block(rng)
    elif field == "size":
        inode.size = rng.choice((*SIZES, rng.getrandbits(64), rng.randrange(64) * BLOCK))
    else:
        setattr(
            inode,
            field,
            {"kind": rng.randrange(4), "links": rng.randrange(3), "blocks": rng.randrange(40)}.get(field, _block(rng)),
        )
    _put(image, at + number * layout.INODE_BYTES, inode.pack())


def _entry(image: bytearray, rng: random.Random) -> None:
    """In a block of a directory, or in one that may become one."""
    at = START + _block(rng) % superblock().blocks * BLOCK + rng.randrange(8) * layout.ENTRY_BYTES
    number = rng.choice((rng.randrange(INODES), superblock().inodes, _word(rng)))
    _put(image, at, layout.pack_entry(number, rng.choice((*NAMES, rng.randbytes(rng.randrange(60))))))


def _pointers(image: bytearray, rng: random.Random) -> None:
    """A block full of pointers to one block, to itself, or to anything."""
    block = rng.randrange(superblock().data_first, superblock().blocks)
    target = rng.choice((block, _block(rng)))
    count = rng.choice((1, 20, layout.POINTERS))
    words = [target if rng.randrange(2) else _block(rng)] * count
    _put(image, START + block * BLOCK, b"".join(word.to_bytes(4, "little") for word in words))


def _superblock(image: bytearray, rng: random.Random) -> None:
    _put(image, START + 4 * rng.randrange(11), _word(rng).to_bytes(4, "little"))


def _boot_record(image: bytearray, rng: random.Random) -> None:
    at = layout.PARTITIONS_AT + rng.randrange(4) * layout.PARTITION_BYTES
    place, data = rng.choice(
        ((4, bytes([rng.choice((0, 0x7F, 0x82))])), (8, _word(rng).to_bytes(4, "little")), (12, _word(rng).to_bytes(4, "little")))
    )
    _put(image, at + place, data)


def _log(image: bytearray, rng: random.Random) -> None:
    """One that is committed, mostly: what it says is replayed."""
    count = rng.choice((1, 2, 20, layout.LOG_CAPACITY, layout.LOG_CAPACITY + 1))
    homes = [rng.choice((_block(rng), superblock().inode_first)) for _ in range(count)]
    words = [layout.LOG_MAGIC, rng.choice((count, count, _word(rng))), layout.log_checksum(homes), *homes]
    _put(image, START + superblock().log_first * BLOCK, b"".join(word.to_bytes(4, "little") for word in words))
    if rng.randrange(2):
        inodes = START + superblock().inode_first * BLOCK
        _put(image, START + (superblock().log_first + 1) * BLOCK, bytes(image[inodes : inodes + BLOCK]))


def _noise(image: bytearray, rng: random.Random) -> None:
    _put(
        image,
        START + rng.randrange(superblock().data_first + 70) * BLOCK + rng.randrange(BLOCK),
        rng.randbytes(rng.randrange(1, 64)),
    )


def try_one(data: bytes, folder: Path) -> None:
    """All that `emu disk` does with an image; raises the first error of a part that cannot be read."""
    path = folder / "disk.img"
    path.write_bytes(data)
    errors: list[BadImageError] = []
    with Image(path) as image:
        report = check(image)
        found = []
        try:
            for name, _, inode in image.walk():
                assert escaped(name).isprintable()
                found.append(inode)
        except BadImageError as error:
            errors.append(error)
        for inode in found:
            with contextlib.suppress(BadImageError) if inode.kind == layout.FILE else contextlib.nullcontext():
                with (folder / "out").open("wb") as out:
                    image.save(inode, out)
    assert report.fault_count or not errors, "what cannot be listed is a fault"
    if errors:
        raise errors[0]
