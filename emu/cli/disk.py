"""`emu disk`: images for the guest operating system."""

from __future__ import annotations

from pathlib import Path

from emu.cli.console import write_out
from emu.diskimage import layout
from emu.diskimage.check import check as check_image
from emu.diskimage.image import Image, escaped
from emu.diskimage.make import make as make_image
from emu.errors import OutputError, UsageError
from emu.replacing import can_be_replaced, replacing

STATUS_FAULTS = 1
LINES_AT_ONCE = 1000


def make(path: Path, files_bytes: int, swap_bytes: int, folder: Path | None, *, replace: bool) -> int:
    """Make an image; raises UsageError, BadImageError or OutputError."""
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
    more = report.fault_count - len(report.faults) + report.note_count - len(report.notes)
    lines = [f"{path}: {text}" for text in (*report.faults, *report.notes, *([f"{more:,} more"] if more else ()))]
    lines.append(
        f"{path}: {report.files} files, {report.directories} directories, {report.used_blocks:,} of {total:,} blocks in use{replayed}: "
        f"{report.fault_count} faults"
    )
    write_out(("\n".join(map(escaped, lines)) + "\n").encode())
    return STATUS_FAULTS if report.fault_count else 0


def list_files(path: Path) -> int:
    """A line a file: size and path. Raises BadImageError at damage, after the lines before it."""
    with Image(path) as image:
        lines: list[str] = []
        try:
            for name, _, inode in image.walk():
                lines.append(f"{inode.size:>12,}  {escaped(name)}{'/' if inode.kind == layout.DIRECTORY else ''}\n")
                if len(lines) == LINES_AT_ONCE:
                    write_out("".join(lines).encode())
                    lines.clear()
        finally:
            write_out("".join(lines).encode())
    return 0


def copy(path: Path, name: str, out: Path) -> int:
    """A file of the image to the host. What is at `out` stays until the copy is complete, unless it is a pipe or a device."""
    with Image(path) as image:
        _, inode = image.find(name)
        if inode.kind != layout.FILE:
            raise UsageError(f"{path}: '{name}' is a {layout.KIND_NAMES.get(inode.kind, 'thing of unknown kind')}")
        try:
            if can_be_replaced(out):
                with replacing(out) as file:
                    image.save(inode, file)
            else:
                with out.open("wb") as stream:
                    stream.writelines(image.contents(inode))
        except OSError as error:
            raise OutputError(f"{out}: cannot write ({(error.strerror or str(error)).lower()})") from error
    return 0
