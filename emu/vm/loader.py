"""Multiboot 1 kernels: from a file to what the firmware loads (ELF32, or the address fields of the header); boot disks.

The platform hands the firmware the kernel's pieces through fw_cfg files (see `firmware/main.c`): nothing is written into
guest memory from outside. Rules are those of the Multiboot Specification 0.6.96, section 3.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from emu.errors import BadImageError, UsageError
from emu.units import GIB, KIB, MIB, PAGE_MASK
from emu.vm.hostfile import Bytes, HostFile, open_bytes

HEADER_SEARCH_BYTES = 8192
HEADER_ALIGN = 4
HEADER_MAGIC = 0x1BADB002
HEADER_WORDS = 8  # magic, flags, checksum, header, load, load end, bss end, entry
FLAG_VIDEO = 1 << 2
FLAG_ADDRESSES = 1 << 16
REQUIRED_FLAGS = 0xFFFF
KNOWN_FLAGS = 1 << 0 | 1 << 1  # modules on page boundaries, memory map: both always given
LOW_START, LOW_END = 0x500, 0x9_FC00  # what the firmware leaves of conventional memory (firmware/layout.h)
HIGH_START = MIB
TAKEN = (  # the rest: first address, the one after it, by what
    (0, LOW_START, "interrupt vectors and the BIOS data area"),
    (LOW_END, HIGH_START, "the extended BIOS data area, video memory and ROM"),
)
TABLES_BYTES = 0x2800  # of the multiboot information and what it points to (BOOT_TABLES_BYTES of firmware/layout.h)
TABLES_PLACES = (0x9000, 0x9_D000)  # where it lies if the kernel does not: the first is QEMU's
MAX_CMDLINE_BYTES = 4095
MAX_MODULES = 64
MODULE_NAME_BYTES = 56
MAX_SEGMENTS = 64
MAX_PROGRAM_HEADERS = 1024
SECTOR_BYTES = 512
FLOPPY_SECTORS = (720, 1440, 2400, 2880, 5760)
MAX_DISK_BYTES = 4 * GIB - MIB  # fw_cfg counts a file's bytes in 32 bits

ELF_IDENTITY = b"\x7fELF"
ELF_HEADER = struct.Struct("<16sHHIIIIIHHHHHH")  # ELF32, of System V ABI, chapter 4
PROGRAM_HEADER = struct.Struct("<8I")
CLASS_32, LITTLE_ENDIAN = 1, 1  # bytes 4 and 5
PT_LOAD = 1
EM_386 = 3
ELF_CLASSES = {1: "32-bit", 2: "64-bit"}
MACHINES = {3: "x86", 8: "MIPS", 20: "PowerPC", 21: "PowerPC64", 40: "ARM", 62: "x86-64", 183: "AArch64", 243: "RISC-V"}


@dataclass(frozen=True)
class Segment:
    """A piece of the kernel: its bytes go to `address`; `memory_bytes` of memory are its own, zero beyond the bytes."""

    address: int
    data: Bytes  # of a file: not read yet
    memory_bytes: int

    @property
    def end(self) -> int:
        """The address after it."""
        return self.address + self.memory_bytes


@dataclass(frozen=True)
class Kernel:
    """A kernel image taken apart."""

    entry: int
    segments: tuple[Segment, ...]

    @property
    def end(self) -> int:
        """The address after its last segment."""
        return max(segment.end for segment in self.segments)


@dataclass(frozen=True)
class Module:
    """A file for the guest, placed by `place_modules`."""

    name: str
    address: int
    data: Bytes

    @property
    def end(self) -> int:
        """The address after it."""
        return self.address + len(self.data)


def find_header(image: Bytes, name: str) -> tuple[int, tuple[int, ...]]:
    """(offset, words) of the multiboot header; raises BadImageError when there is none or it asks for too much."""
    head = image[:HEADER_SEARCH_BYTES]
    for at in range(0, len(head) - 11, HEADER_ALIGN):
        magic, flags, checksum = struct.unpack_from("<3I", head, at)
        if magic == HEADER_MAGIC and (magic + flags + checksum) & 0xFFFF_FFFF == 0:
            padded = image[at : at + 4 * HEADER_WORDS].ljust(4 * HEADER_WORDS, b"\0")
            _check_flags(flags, name)
            if flags & FLAG_ADDRESSES and at + 4 * HEADER_WORDS > len(image):
                raise BadImageError(f"{name}: the image ends inside its multiboot header")
            return at, struct.unpack(f"<{HEADER_WORDS}I", padded)
    if not head:
        raise BadImageError(f"{name}: the file is empty")
    raise BadImageError(f"{name}: no multiboot header in the first {HEADER_SEARCH_BYTES} bytes")


def _check_flags(flags: int, name: str) -> None:
    unknown = flags & REQUIRED_FLAGS & ~KNOWN_FLAGS
    if unknown == FLAG_VIDEO:
        raise BadImageError(f"{name}: the kernel wants a video mode; this machine has a serial line only")
    if unknown:
        raise BadImageError(f"{name}: the multiboot header requires features {unknown:#x} that do not exist here")


def parse(image: Bytes, name: str) -> Kernel:
    """Take a kernel image apart; `name` is for messages. Only headers are read. Raises BadImageError."""
    at, header = find_header(image, name)
    return _by_addresses(image, at, header, name) if header[1] & FLAG_ADDRESSES else _by_elf(image, name)


def _by_addresses(image: Bytes, at: int, header: tuple[int, ...], name: str) -> Kernel:
    """The a.out kludge: the header says where its own file goes."""
    _magic, _flags, _checksum, header_address, load, load_end, bss_end, entry = header
    if not header_address - at <= load <= header_address:
        raise BadImageError(f"{name}: load_addr {load:#x} does not agree with header_addr {header_address:#x}")
    first = at - (header_address - load)
    length = load_end - load if load_end else len(image) - first
    if length <= 0:
        raise BadImageError(f"{name}: load_end_addr {load_end:#x} is not beyond load_addr {load:#x}")
    if first + length > len(image):
        raise BadImageError(f"{name}: truncated: {first + length} bytes are to be loaded, the file has {len(image)}")
    end = bss_end or load + length
    if end < load + length:
        raise BadImageError(f"{name}: bss_end_addr {bss_end:#x} lies before the end of the loaded data")
    return Kernel(entry, (Segment(load, _part(image, first, length), end - load),))


def _part(image: Bytes, first: int, size: int) -> Bytes:
    return image.part(first, size) if isinstance(image, HostFile) else image[first : first + size]


def _by_elf(image: Bytes, name: str) -> Kernel:
    head = image[: ELF_HEADER.size]
    if head[:4] != ELF_IDENTITY:
        raise BadImageError(f"{name}: neither an ELF file nor a multiboot header with load addresses")
    if len(head) < ELF_HEADER.size:
        raise BadImageError(f"{name}: a damaged ELF file: it ends inside its header")
    identity, _, machine, _, entry, table, _, _, _, entry_bytes, count, *_ = ELF_HEADER.unpack(head)
    if (identity[4], identity[5], machine) != (CLASS_32, LITTLE_ENDIAN, EM_386):
        order = "" if identity[5] == LITTLE_ENDIAN else "big-endian "
        what = f"{order}{ELF_CLASSES.get(identity[4], 'unknown')} {MACHINES.get(machine, f'machine {machine}')}"
        raise BadImageError(
            f"{name}: an ELF file for another processor ({what}): 32-bit x86, or load addresses in the header, are needed"
        )
    headers = [header for header in _program_headers(image, table, entry_bytes, count, name) if header.memory_bytes]
    if not headers:
        raise BadImageError(f"{name}: an ELF file with nothing to load")
    if len(headers) > MAX_SEGMENTS:
        raise BadImageError(f"{name}: {len(headers)} segments; at most {MAX_SEGMENTS} can be loaded")
    return Kernel(_physical_entry(entry, headers), tuple(_elf_segment(image, header, name) for header in headers))


@dataclass(frozen=True)
class ProgramHeader:
    """One that says what to load."""

    offset: int  # in the file
    virtual: int
    physical: int
    file_bytes: int
    memory_bytes: int


def _program_headers(image: Bytes, at: int, entry_bytes: int, count: int, name: str) -> list[ProgramHeader]:
    """Those of PT_LOAD. Section headers are nobody's business here: a file may be stripped of them, or lie."""
    if count > MAX_PROGRAM_HEADERS:
        raise BadImageError(f"{name}: {count} program headers; at most {MAX_PROGRAM_HEADERS} are looked at")
    if count and entry_bytes != PROGRAM_HEADER.size:
        raise BadImageError(f"{name}: a damaged ELF file: program headers of {entry_bytes} bytes, not {PROGRAM_HEADER.size}")
    size = count * PROGRAM_HEADER.size
    if count and at + size > len(image):
        raise BadImageError(f"{name}: truncated: the program headers end at byte {at + size}, the file at {len(image)}")
    fields = PROGRAM_HEADER.iter_unpack(image[at : at + size] if count else b"")
    return [
        ProgramHeader(offset, virtual, physical, length, memory)
        for kind, offset, virtual, physical, length, memory, _, _ in fields
        if kind == PT_LOAD
    ]


def _elf_segment(image: Bytes, header: ProgramHeader, name: str) -> Segment:
    end = header.offset + header.file_bytes
    if header.file_bytes and end > len(image):
        raise BadImageError(f"{name}: truncated: a segment ends at byte {end}, the file at {len(image)}")
    if header.file_bytes > header.memory_bytes:
        raise BadImageError(
            f"{name}: a segment has {header.file_bytes} bytes in the file but only {header.memory_bytes} in memory"
        )
    return Segment(header.physical, _part(image, header.offset, header.file_bytes), header.memory_bytes)


def _physical_entry(entry: int, headers: list[ProgramHeader]) -> int:
    """The entry point's load address: kernels linked high give a virtual one, while paging is off at entry."""
    for header in headers:
        if header.physical <= entry < header.physical + header.memory_bytes:
            return entry
    for header in headers:
        if header.virtual <= entry < header.virtual + header.memory_bytes:
            return entry - header.virtual + header.physical
    return entry


def check_fits(kernel: Kernel, memory_bytes: int, name: str) -> None:
    """Raise BadImageError unless all segments lie in usable memory, none over another, and the entry point in one of them."""
    for segment in kernel.segments:
        if why := _why_unusable(segment, memory_bytes):
            raise BadImageError(f"{name}: a segment at {_range(segment)} lies outside usable memory: {why}")
    in_order = sorted(kernel.segments, key=lambda segment: segment.address)
    for one, other in zip(in_order, in_order[1:], strict=False):
        if one.end > other.address:
            raise BadImageError(f"{name}: overlapping segments: {_range(one)} and {_range(other)}")
    if not any(segment.address <= kernel.entry < segment.end for segment in kernel.segments):
        raise BadImageError(f"{name}: the entry point {kernel.entry:#x} lies in no segment")


def _why_unusable(segment: Segment, memory_bytes: int) -> str:
    """Empty if it is usable."""
    for first, end, what in TAKEN:
        if segment.address < end and first < segment.end:
            return f"{first:#x}-{end - 1:#x} is taken by {what}"
    return f"the machine has {memory_bytes // MIB} MiB" if segment.end > memory_bytes else ""


def _range(segment: Segment) -> str:
    return f"{segment.address:#x}-{segment.end - 1:#x}"


def place_modules(kernel: Kernel, files: tuple[Path, ...], memory_bytes: int) -> tuple[Module, ...]:
    """Find the module files and put them behind the kernel, on page boundaries; raises BadImageError."""
    if len(files) > MAX_MODULES:
        raise UsageError(f"{len(files)} modules: at most {MAX_MODULES} can be given")
    modules: list[Module] = []
    at = max(kernel.end, HIGH_START)
    for path in files:
        data = open_bytes(path, "module")
        at = _next_page(at)
        if at + len(data) > memory_bytes:
            room = max(0, memory_bytes - at) // KIB
            raise BadImageError(f"{path}: a module of {len(data)} bytes does not fit: {room} KiB of memory are left for it")
        if len(os.fsencode(path.name)) >= MODULE_NAME_BYTES:
            raise UsageError(f"{path}: the name of a module has at most {MODULE_NAME_BYTES - 1} bytes")
        modules.append(Module(path.name, at, data))
        at += len(data)
    return tuple(modules)


def place_tables(kernel: Kernel, modules: tuple[Module, ...], memory_bytes: int, name: str) -> int:
    """Where the firmware puts the multiboot information: in conventional memory, away from the kernel; raises BadImageError if nowhere."""
    used = [(segment.address, segment.end) for segment in kernel.segments] + [(module.address, module.end) for module in modules]
    for at in (*TABLES_PLACES, *sorted(_next_page(end) for _, end in (*used, (0, LOW_START), (0, HIGH_START)))):
        end = at + TABLES_BYTES
        if (end <= LOW_END or HIGH_START <= at <= memory_bytes - TABLES_BYTES) and all(
            end <= first or at >= last for first, last in used
        ):
            return at
    raise BadImageError(
        f"{name}: no room for {TABLES_BYTES // KIB} KiB of multiboot information beside the kernel and its modules"
    )


def _next_page(address: int) -> int:
    return (address + PAGE_MASK) & ~PAGE_MASK


def firmware_files(kernel: Kernel, modules: tuple[Module, ...], cmdline: str, tables: int = TABLES_PLACES[0]) -> dict[str, bytes]:
    """What the platform offers the firmware: the files of fw_cfg by name. `tables` is the address that `place_tables` gave."""
    line = cmdline.encode("utf-8", "surrogateescape")
    if len(line) > MAX_CMDLINE_BYTES:
        raise UsageError(f"a kernel command line of {len(line)} bytes: at most {MAX_CMDLINE_BYTES} can be passed")
    if b"\0" in line:
        raise UsageError("the kernel command line has a NUL character")
    files = {
        "entry": struct.pack("<I", kernel.entry),
        "segments": b"".join(struct.pack("<II", part.address, len(part.data)) for part in kernel.segments),
        "image": _joined(part.data for part in kernel.segments),
        "tables": struct.pack("<I", tables),
        "cmdline": line + b"\0",
    }
    if modules:
        names = ((module, os.fsencode(module.name)) for module in modules)
        files["modules"] = b"".join(struct.pack("<II56s", m.address, len(m.data), name) for m, name in names)
        files["module-data"] = _joined(module.data for module in modules)
    return {f"opt/emu/{name}": data for name, data in files.items()}


def _joined(parts: Iterable[Bytes]) -> bytes:
    """Parts of files, read now, one after another."""
    return b"".join(part[:] for part in parts)


def load(path: Path, memory_bytes: int, append: str = "", modules: tuple[Path, ...] = ()) -> dict[str, bytes]:
    """The fw_cfg files that boot the kernel at `path`; raises BadImageError or UsageError with a line for the user."""
    kernel = parse(open_bytes(path, "kernel"), str(path))
    check_fits(kernel, memory_bytes, str(path))
    placed = place_modules(kernel, modules, memory_bytes)
    tables = place_tables(kernel, placed, memory_bytes, str(path))
    return firmware_files(kernel, placed, f"{path.name} {append}".strip(), tables)


def is_hard_disk(path: Path) -> bool:
    """Whether a boot disk is a drive of whole sectors, and no floppy (firmware/disk.c has the same sizes); raises BadImageError."""
    size = len(HostFile(path, "boot disk"))
    return size % SECTOR_BYTES == 0 and size // SECTOR_BYTES not in FLOPPY_SECTORS


def load_disk(path: Path) -> dict[str, bytes]:
    """The fw_cfg file that boots from the image at `path`, read as the guest asks for it; raises BadImageError with a line for the user."""
    image = HostFile(path, "boot disk")
    if not len(image):
        raise BadImageError(f"{path}: the boot disk is empty")
    if len(image) < SECTOR_BYTES:
        raise BadImageError(f"{path}: a boot disk of {len(image)} bytes: expected a sector of {SECTOR_BYTES} at least")
    if len(image) > MAX_DISK_BYTES:
        raise BadImageError(f"{path}: the boot disk does not fit: it has more than {MAX_DISK_BYTES // MIB} MiB")
    return {"opt/emu/boot-disk": cast("bytes", image)}  # as much of bytes as the device uses
