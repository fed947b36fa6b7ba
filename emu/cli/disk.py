"""`emu disk`: images for the guest operating system."""

from __future__ import annotations

from pathlib import Path

from emu.cli.console import write_out
from emu.diskimage import layout
from emu.diskimage.check import check as check_image
from emu.diskimage.image import Image
from emu.diskimage.make import make as make_image
from emu.errors import EmuError, OutputError, UsageError

STATUS_FAULTS = 1


def make(path: Path, files_bytes: int, swap_bytes: int, folder: Path | None, *, replace: bool) -> int:
    """Make an image; raises UsageError or EmuError."""
    if folder is not None and not folder.is_dir():
        raise UsageError(f"{folder}: not a folder")
    make_image(path, files_bytes, swap_bytes, folder, replace=replace)
    return 0


def check(path: Path) -> int:
    """Check an image; status 1 if it has a fault."""
    with Image(path) as image:
        report = check_image(image)
        replayed = f", {image.replayed} blocks of its log replayed" if image.replayed else ""
        total = image.super.blocks - image.super.data_first
    lines = [f"{path}: {fault}" for fault in report.faults] + [f"{path}: {note}" for note in report.notes]
    lines.append(
        f"{path}: {report.files} files, {report.directories} directories, {report.used_blocks:,} of {total:,} blocks in use{replayed}: "
        f"{len(report.faults)} faults"
    )
    write_out(("\n".join(lines) + "\n").encode())
    return STATUS_FAULTS if report.faults else 0


def list_files(path: Path) -> int:
    """A line a file: size and path."""
    with Image(path) as image:
        lines = [f"{inode.size:>12,}  {name}{'/' if inode.kind == layout.DIRECTORY else ''}\n" for name, _, inode in image.walk()]
    write_out("".join(lines).encode())
    return 0


def copy(path: Path, name: str, out: Path) -> int:
    """A file of the image to the host."""
    with Image(path) as image:
        _, inode = image.find(name)
        if inode.kind != layout.FILE:
            raise UsageError(f"{path}: '{name}' is a directory")
        try:
            with out.open("wb") as file:
                for part in image.contents(inode):
                    file.write(part)
        except OSError as error:
            raise OutputError(f"{out}: cannot write ({(error.strerror or str(error)).lower()})") from error
        except IndexError as error:
            raise EmuError(f"{path}: '{name}' has a block outside of the file system; `emu disk check` tells more") from error
    return 0
