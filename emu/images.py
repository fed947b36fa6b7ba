# SPDX-License-Identifier: GPL-2.0-or-later
"""The guests and the boot ROM that come with emu, as files beside the package's modules (made when it is built)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from emu.errors import EmuError
from emu.wording import unknown

FOLDER = Path(__file__).resolve().parent / "images"
INDEX = "guests.json"  # [{"name", "description"}]; a boot disk has "is_disk": true too, a flat kernel the name of its "file"
ROM = "firmware.rom"


@dataclass(frozen=True)
class GuestInfo:
    """A guest kernel, or a disk to boot from."""

    name: str
    description: str
    path: Path


def _missing() -> EmuError:
    return EmuError(f"{FOLDER}: guests or boot ROM missing, since emu was not built; install it again, or use scripts/emu")


def _listed(suffix: str, *, are_disks: bool) -> list[GuestInfo]:
    try:
        entries = json.loads((FOLDER / INDEX).read_text(encoding="utf-8"))
    except OSError as error:
        raise _missing() from error
    wanted = (entry for entry in entries if entry.get("is_disk", False) == are_disks)
    return [
        GuestInfo(entry["name"], entry["description"], FOLDER / entry.get("file", entry["name"] + suffix)) for entry in wanted
    ]


def guests() -> list[GuestInfo]:
    """All guest kernels, in the order of guests.toml; raises EmuError when the package was not built."""
    return _listed(".elf", are_disks=False)


def disks() -> list[GuestInfo]:
    """All boot disks, in the order of guests.toml; raises EmuError when the package was not built."""
    return _listed(".img", are_disks=True)


def guest(name: str) -> Path:
    """The file of a guest; raises UsageError naming the known ones."""
    known = {info.name: info.path for info in guests()}
    if name not in known:
        raise unknown("guest", name, known)
    return known[name]


def firmware() -> bytes:
    """The boot ROM; raises EmuError when the package was not built."""
    try:
        return (FOLDER / ROM).read_bytes()
    except OSError as error:
        raise _missing() from error
