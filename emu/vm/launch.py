"""From an image and a configuration to a machine that can run: what the command and the suites' runner share."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from emu import images
from emu.config import VmConfig, parse_size
from emu.devices import disk, ide
from emu.devices.disk import Disk
from emu.errors import EmuError, UsageError
from emu.machine.memory import MachineMemory
from emu.units import PAGE_BYTES
from emu.vm import loader
from emu.wording import quoted, suggestion

if TYPE_CHECKING:
    from emu.vm.outside import Console
    from emu.vm.vm import VirtualMachine

SIZE = re.compile(r"\d+[KMGkmg]?", re.ASCII)  # a disk that is no file
READONLY = ",readonly"  # behind the name of a disk


@dataclass(frozen=True)
class Boot:
    """What a machine boots: a multiboot kernel with its arguments and modules, or a disk with a boot sector."""

    image: Path
    append: str = ""
    modules: tuple[Path, ...] = ()
    is_disk: bool = False


def find_image(guest: str) -> Path:
    """A guest that comes with emu by its name, else a file; raises UsageError if it is neither."""
    known = {info.name: info.path for info in images.guests()}
    if guest in known:
        return known[guest]
    path = Path(guest)
    with contextlib.suppress(OSError):  # a name that no file can have
        if "/" in guest or path.exists():
            return path
    names = [*known, *(info.name for info in images.disks())]
    raise UsageError(f"unknown guest {quoted(guest)}: there is no such file{suggestion(guest, names)}")


def find_disk(disk: Path) -> Path:
    """A boot disk that comes with emu by its name, else a file."""
    return {info.name: info.path for info in images.disks()}.get(str(disk), disk)


def open_disk(text: str) -> Disk:
    """The disk that `FILE`, `FILE,readonly` or `memory:SIZE` names; raises BadImageError or UsageError."""
    if text.startswith(disk.MEMORY_PREFIX):
        return disk.memory_disk(parse_size(text.removeprefix(disk.MEMORY_PREFIX), what="disk size"))
    name = text.removesuffix(READONLY)
    if not name:
        raise UsageError("--disk: expected FILE, FILE,readonly or memory:SIZE")
    return disk.open_disk(Path(name), readonly=text.endswith(READONLY))


def disk_source(text: str) -> Path | int:
    """What `scratch_disks` takes: bytes for a size such as `16M`, else a file; raises UsageError for a size of part of a sector."""
    if not SIZE.fullmatch(text):
        return Path(text)
    size = parse_size(text, what="disk size")
    if not size or size % disk.SECTOR_BYTES:
        raise UsageError(f"disk of {size} bytes: whole sectors of {disk.SECTOR_BYTES} bytes are needed")
    return size


def scratch_disks(sources: Sequence[Path | int], what: Boot) -> tuple[Disk, ...]:
    """The same for a run that leaves nothing behind, in memory: copies of files, and empty ones by their size; raises BadImageError."""
    opened = [disk.memory_disk(source) if isinstance(source, int) else disk.copy_disk(source) for source in sources]
    return (*open_disks((), what), *opened)


def open_disks(texts: Sequence[str], what: Boot) -> tuple[Disk, ...]:
    """The disks of a machine, in the order of its drives; raises BadImageError or UsageError.

    What it boots from is the first of them, for reading only, unless it is among `texts`, or no hard disk.
    """
    opened: list[Disk] = []
    try:
        for text in texts:
            _refuse_twice(text, texts[: len(opened)])
            opened.append(open_disk(text))
        if what.is_disk and loader.is_hard_disk(what.image) and not any(_is_file(text, what.image) for text in texts):
            opened.insert(0, disk.open_disk(what.image, readonly=True))
        if len(opened) > ide.MAX_DRIVES:
            raise UsageError(f"{len(opened)} disks: at most {ide.MAX_DRIVES} can be attached")
    except EmuError:
        for one in opened:
            one.close()
        raise
    return tuple(opened)


def _is_file(text: str, path: Path) -> bool:
    """Whether `text`, of --disk, names this file."""
    with contextlib.suppress(OSError, ValueError):
        return not text.startswith(disk.MEMORY_PREFIX) and path.samefile(text.removesuffix(READONLY))
    return False


def _refuse_twice(text: str, others: Sequence[str]) -> None:
    """A file may be several disks if none of them is written."""
    name = Path(text.removesuffix(READONLY))
    for other in others:
        if _is_file(other, name) and not (text.endswith(READONLY) and other.endswith(READONLY)):
            raise UsageError(f"{name}: given twice as a disk: a disk image has one writer, or readers only (FILE{READONLY})")


def boot_files(what: Boot, memory_bytes: int) -> dict[str, bytes]:
    """The fw_cfg files that boot it; raises BadImageError or UsageError."""
    if what.is_disk:
        return loader.load_disk(what.image)
    return loader.load(what.image, memory_bytes, what.append, what.modules)


def new_machine(
    config: VmConfig,
    firmware_files: dict[str, bytes],
    console: Console,
    on_events: Callable[[np.ndarray], None] | None = None,
    attached: Sequence[Disk] = (),
) -> VirtualMachine:
    """A VM in a machine that is just large enough for it."""
    from emu.vm.state import frames_needed
    from emu.vm.vm import VirtualMachine  # compiles on import: only now is it known to be needed

    rom = images.firmware()
    memory = MachineMemory(frames_needed(config, len(rom)) * PAGE_BYTES)
    return VirtualMachine(
        memory, config, rom=rom, firmware_files=firmware_files, console=console, on_events=on_events, disks=attached
    )


@dataclass
class RecordingConsole:
    """A console that keeps what the guest prints and has no input."""

    WIRING: ClassVar[frozenset[str]] = frozenset()

    output: bytearray = field(default_factory=bytearray)  # COM1
    debug: bytearray = field(default_factory=bytearray)  # port 0xE9

    def write(self, data: bytes) -> None:
        """COM1."""
        self.output += data

    def write_debug(self, data: bytes) -> None:
        """Port 0xE9."""
        self.debug += data

    def poll(self) -> bytes:
        """No input."""
        return b""

    def idle(self, _seconds: float | None) -> bool:
        """No input will come."""
        return False
