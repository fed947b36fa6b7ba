# SPDX-License-Identifier: GPL-2.0-or-later
"""The file behind a drive: transfers in pieces, and a host that refuses them."""

from __future__ import annotations

import errno
import os
import random
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from emu.devices import disk
from emu.devices.disk import SECTOR_BYTES, Disk, DiskError, copy_disk, memory_disk, open_disk
from emu.errors import BadImageError

SECTORS = 64
READ_ONLY_ERRORS = "needs a user whom permissions bind"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(random.Random(1).randbytes(SECTORS * SECTOR_BYTES))
    return path


@pytest.fixture
def opened(image: Path) -> Iterator[Disk]:
    it = open_disk(image)
    yield it
    it.close()


@pytest.fixture
def told(opened: Disk) -> list[str]:
    lines: list[str] = []
    opened.on_trouble = lines.append
    return lines


def views(*sizes: int) -> list[memoryview]:
    return [memoryview(bytearray(size)) for size in sizes]


def test_reads_scatter_and_writes_gather(opened: Disk, image: Path) -> None:
    data = image.read_bytes()
    parts = views(2, 700, 322)
    opened.read(3, parts)
    assert b"".join(parts) == data[3 * SECTOR_BYTES :][:1024]
    opened.write(10, parts)
    assert image.read_bytes() == data[: 10 * SECTOR_BYTES] + b"".join(parts) + data[12 * SECTOR_BYTES :]
    assert opened.sectors == SECTORS


def test_more_views_than_the_host_takes_at_once(opened: Disk, image: Path) -> None:
    parts = views(*[2] * (SECTORS * SECTOR_BYTES // 2))
    assert len(parts) > disk.VIEWS_AT_ONCE
    opened.read(0, parts)
    assert b"".join(parts) == image.read_bytes()
    for part in parts:
        part[0] ^= 0xFF
    opened.write(0, parts)
    assert b"".join(parts) == image.read_bytes()


def test_a_host_that_transfers_little_at_a_time(opened: Disk, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, preadv, pwritev = image.read_bytes(), os.preadv, os.pwritev
    monkeypatch.setattr(os, "preadv", lambda fd, parts, at: preadv(fd, [parts[0][:100]], at))
    monkeypatch.setattr(os, "pwritev", lambda fd, parts, at: pwritev(fd, [parts[0][:100]], at))
    parts = views(350, 674)
    opened.read(5, parts)
    assert b"".join(parts) == data[5 * SECTOR_BYTES :][:1024]
    opened.write(0, parts)
    assert image.read_bytes()[:1024] == b"".join(parts)


def test_a_truncated_file_fails_and_does_not_grow(opened: Disk, image: Path, told: list[str]) -> None:
    os.truncate(image, 10 * SECTOR_BYTES)
    opened.read(9, views(SECTOR_BYTES))
    for _ in range(3):
        with pytest.raises(DiskError):
            opened.read(9, views(2 * SECTOR_BYTES))
        with pytest.raises(DiskError):
            opened.write(20, views(SECTOR_BYTES))
    assert image.stat().st_size == 10 * SECTOR_BYTES
    assert len(told) == 2  # one for reads, one for writes, however often
    assert told[0] == f"{image}: cannot read at sector 9 (the file was truncated while in use): the guest gets a disk error"


def test_a_limit_on_file_sizes(opened: Disk, told: list[str]) -> None:
    """As a full disk is: the host writes what it can, and then fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20 * SECTOR_BYTES, hard))
    try:
        opened.write(18, views(2 * SECTOR_BYTES))
        with pytest.raises(DiskError) as failure:
            opened.write(18, views(4 * SECTOR_BYTES))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert failure.value.sector == 20
    assert len(told) == 1
    assert "cannot write at sector 20 (file too large)" in told[0]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.ESTALE])
def test_a_host_that_refuses(opened: Disk, told: list[str], monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*_arguments: object) -> int:
        raise OSError(code, os.strerror(code))

    for call in ("preadv", "pwritev", "fdatasync"):
        monkeypatch.setattr(os, call, refuse)
    for attempt in (opened.read, opened.write):
        with pytest.raises(DiskError) as failure:
            attempt(7, views(SECTOR_BYTES))
        assert failure.value.sector == 7
    with pytest.raises(DiskError):
        opened.flush()
    assert all(os.strerror(code).lower() in line for line in told)
    assert len(told) == 3


def test_no_progress_is_an_error(opened: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "preadv", lambda *_arguments: 0)
    with pytest.raises(DiskError):
        opened.read(0, views(SECTOR_BYTES))


def test_a_deleted_file_cannot_be_flushed(opened: Disk, image: Path, told: list[str]) -> None:
    opened.flush()
    image.unlink()
    opened.write(0, views(SECTOR_BYTES))
    with pytest.raises(DiskError):
        opened.flush()
    assert told == [f"{image}: was deleted while in use: what the guest writes is lost at the end"]


def test_memory_disk() -> None:
    it = memory_disk(SECTORS * SECTOR_BYTES)
    parts = views(SECTOR_BYTES)
    it.read(SECTORS - 1, parts)
    assert not any(parts[0])
    parts[0][:] = b"\x55" * SECTOR_BYTES
    it.write(3, parts)
    it.flush()
    back = views(2 * SECTOR_BYTES)
    it.read(2, back)
    assert back[0] == bytes(SECTOR_BYTES) + b"\x55" * SECTOR_BYTES
    it.close()
    it.close()


def test_a_memory_disk_larger_than_memory() -> None:
    with pytest.raises(BadImageError, match="use a file"):
        memory_disk(disk.MAX_DISK_BYTES)


def test_a_copy_leaves_the_original_alone(image: Path) -> None:
    before = image.read_bytes()
    it = copy_disk(image)
    parts = views(SECTORS * SECTOR_BYTES)
    it.read(0, parts)
    assert parts[0] == before
    it.write(0, views(SECTOR_BYTES))
    it.close()
    assert image.read_bytes() == before
    open_disk(image).close()  # and unlocked


# ---- what is refused at the start ----


@pytest.mark.parametrize("size", [0, 1, 511, 513, 1 << 42])
def test_sizes_that_are_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "disk.img"
    path.touch()
    os.truncate(path, size)
    with pytest.raises(BadImageError, match=f"disk.img: a disk of {size} bytes"):
        open_disk(path)
    with pytest.raises(BadImageError, match=f"a disk of {size} bytes"):
        memory_disk(size)


def test_what_is_no_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (("", "a folder"), ("missing", "no such file"), ("pipe", "not a regular file"), ("a\0b", "null")):
        with pytest.raises(BadImageError, match=reason) as failure:
            open_disk(tmp_path / name)
        assert len(str(failure.value).splitlines()) == 1
    with pytest.raises(BadImageError, match="not a regular file"):
        open_disk(Path("/dev/null"))


@pytest.mark.skipif(os.geteuid() == 0, reason=READ_ONLY_ERRORS)
def test_files_without_permission(image: Path) -> None:
    image.chmod(0o400)
    with pytest.raises(BadImageError, match="permission denied.*,readonly"):
        open_disk(image)
    open_disk(image, readonly=True).close()
    image.chmod(0)
    with pytest.raises(BadImageError, match="permission denied"):
        open_disk(image, readonly=True)


def test_one_writer_or_many_readers(image: Path) -> None:
    writer = open_disk(image)
    for readonly in (False, True):
        with pytest.raises(BadImageError, match="in use by another emu"):
            open_disk(image, readonly=readonly)
    writer.close()
    readers = [open_disk(image, readonly=True) for _ in range(2)]
    with pytest.raises(BadImageError, match="in use by another emu"):
        open_disk(image)
    for reader in readers:
        reader.close()
    open_disk(image).close()


def test_a_lock_goes_with_its_process(image: Path) -> None:
    code = f"import os; from pathlib import Path; from emu.devices.disk import open_disk; open_disk(Path({str(image)!r})); os._exit(0)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parents[2])
    open_disk(image).close()


def test_random_transfers_against_a_model(image: Path) -> None:
    dice = random.Random(4)
    model = bytearray(image.read_bytes())
    it = open_disk(image)
    for _ in range(300):
        sector = dice.randrange(SECTORS)
        size = dice.randint(1, SECTORS - sector) * SECTOR_BYTES
        cuts = sorted(dice.sample(range(size + 1), min(size, dice.randrange(6))))
        sizes = [end - start for start, end in zip([0, *cuts], [*cuts, size], strict=True)]
        parts, at = views(*sizes), sector * SECTOR_BYTES
        if dice.random() < 0.5:
            for part in parts:
                part[:] = dice.randbytes(len(part))
            it.write(sector, parts)
            model[at : at + size] = b"".join(parts)
        else:
            it.read(sector, parts)
            assert b"".join(parts) == model[at : at + size]
    it.close()
    assert image.read_bytes() == model
