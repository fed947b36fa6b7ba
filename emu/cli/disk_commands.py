"""The command line of `emu disk`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emu.cli.request import Request
from emu.config import parse_size
from emu.errors import UsageError

disk_app = typer.Typer(help="Make and look into disk images for the guest operating system.")
ImageFile = Annotated[Path, typer.Argument(metavar="FILE", help="The image.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there.")]


@disk_app.callback(invoke_without_command=True)
def help_if_alone(context: typer.Context) -> None:
    """Make and look into disk images for the guest operating system."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit


@disk_app.command("make")
def disk_make(
    file: ImageFile,
    size: Annotated[str, typer.Option(metavar="SIZE", help="Size of the file system.")] = "64M",
    swap: Annotated[str, typer.Option(metavar="SIZE", help="Size of the swap partition; 0 for none.")] = "0",
    folder: Annotated[Path | None, typer.Option("--from", metavar="FOLDER", help="Put the files of this folder into it.")] = None,
    force: Force = False,
) -> Request:
    """Make an image: a file system, and a swap partition if wanted."""
    files_bytes, swap_bytes = parse_size(size, what="file system size"), parse_size(swap, what="swap size")

    def run() -> int:
        from emu.cli import disk

        return disk.make(file, files_bytes, swap_bytes, folder, replace=force)

    return Request((file, files_bytes, swap_bytes, folder, force), run)


@disk_app.command("check")
def disk_check(file: ImageFile) -> Request:
    """Check an image's file system, as a mount would find it; status 1 if something is wrong."""

    def run() -> int:
        from emu.cli import disk

        return disk.check(file)

    return Request(file, run)


@disk_app.command("list")
def disk_list(file: ImageFile) -> Request:
    """List the files of an image."""

    def run() -> int:
        from emu.cli import disk

        return disk.list_files(file)

    return Request(file, run)


@disk_app.command("copy")
def disk_copy(
    file: ImageFile,
    path: Annotated[str, typer.Argument(help="The file in the image.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Where to.")],
    force: Force = False,
) -> Request:
    """Copy a file out of an image."""

    def run() -> int:
        from emu.cli import disk

        if out.is_file() and not force:
            raise UsageError(f"{out}: is there already; --force replaces it")
        return disk.copy(file, path, out)

    return Request((file, path, out, force), run)
