"""Multiboot 1 kernels: from a file to what the firmware loads (ELF32, or the address fields of the header); boot disks.

The platform hands the firmware the kernel's pieces through fw_cfg files (see `firmware/main.c`): nothing is written into
guest memory from outside. Rules are those of the Multiboot Specification 0.6.96, section 3.
"""

from __future__ import annotations

import io
import os
import struct
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast, overload

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from emu.errors import BadImageError, UsageError
from emu.units import GIB, KIB, MIB, PAGE_MASK

HEADER_SEARCH_BYTES = 8192
HEADER_ALIGN = 4
HEADER_MAGIC = 0x1BADB002
HEADER_WORDS = 8  # magic, flags, checksum, header, load, load end, bss end, entry
FLAG_VIDEO = 1 << 2
FLAG_ADDRESSES = 1 << 16
REQUIRED_FLAGS = 0xFFFF
KNOWN_FLAGS = 1 << 0 | 1 << 1  # modules on page boundaries, memory map: both always given
LOW_START, LOW_END = 0x1_0000, 0x9_FC00  # what the firmware leaves of conventional memory (firmware/layout.h)
HIGH_START = MIB
MAX_CMDLINE_BYTES = 4095
MAX_MODULES = 64
MODULE_NAME_BYTES = 56
MAX_SEGMENTS = 64
SECTOR_BYTES = 512
MAX_DISK_BYTES = 4 * GIB - MIB  # fw_cfg counts a file's bytes in 32 bits
MAX_IMAGE_BYTES = GIB  # of a kernel file, debugging information included
READ_BYTES = 16 * MIB  # at a time


@dataclass(frozen=True)
class Segment:
    """A piece of the kernel: its bytes go to `address`; `memory_bytes` of memory are its own, zero beyond the bytes."""

    address: int
    data: bytes
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
    data: bytes


def read_file(path: Path, what: str, most_bytes: int) -> bytes:
    """A user's file; raises BadImageError with the reason when it cannot be read or is longer than `most_bytes`."""
    try:
        with path.open("rb") as file:
            data = _read_at_most(file, most_bytes + 1)
    except OSError as error:
        msg = f"{path}: cannot read the {what}: {(error.strerror or str(error)).lower()}"
        raise BadImageError(msg) from error
    if len(data) > most_bytes:
        raise BadImageError(f"{path}: the {what} does not fit: it has more than {most_bytes // KIB} KiB")
    return data


def _read_at_most(file: BinaryIO, most_bytes: int) -> bytes:
    """Up to so many bytes, in parts: one read would take memory for all of them whatever there is."""
    parts, left = [], most_bytes
    while left and (part := file.read(min(left, READ_BYTES))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def find_header(image: bytes, name: str) -> tuple[int, tuple[int, ...]]:
    """(offset, words) of the multiboot header; raises BadImageError when there is none or it asks for too much."""
    for at in range(0, min(len(image), HEADER_SEARCH_BYTES) - 11, HEADER_ALIGN):
        magic, flags, checksum = struct.unpack_from("<3I", image, at)
        if magic == HEADER_MAGIC and (magic + flags + checksum) & 0xFFFF_FFFF == 0:
            padded = image[at : at + 4 * HEADER_WORDS].ljust(4 * HEADER_WORDS, b"\0")
            _check_flags(flags, name)
            if flags & FLAG_ADDRESSES and at + 4 * HEADER_WORDS > len(image):
                raise BadImageError(f"{name}: the image ends inside its multiboot header")
            return at, struct.unpack(f"<{HEADER_WORDS}I", padded)
    if not image:
        raise BadImageError(f"{name}: the file is empty")
    raise BadImageError(f"{name}: no multiboot header in the first {HEADER_SEARCH_BYTES} bytes")


def _check_flags(flags: int, name: str) -> None:
    unknown = flags & REQUIRED_FLAGS & ~KNOWN_FLAGS
    if unknown == FLAG_VIDEO:
        raise BadImageError(f"{name}: the kernel wants a video mode; this machine has a serial line only")
    if unknown:
        raise BadImageError(f"{name}: the multiboot header requires features {unknown:#x} that do not exist here")


def parse(image: bytes, name: str) -> Kernel:
    """Take a kernel image apart; `name` is for messages. Raises BadImageError."""
    at, header = find_header(image, name)
    return _by_addresses(image, at, header, name) if header[1] & FLAG_ADDRESSES else _by_elf(image, name)


def _by_addresses(image: bytes, at: int, header: tuple[int, ...], name: str) -> Kernel:
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
    return Kernel(entry, (Segment(load, image[first : first + length], end - load),))


def _by_elf(image: bytes, name: str) -> Kernel:
    if image[:4] != b"\x7fELF":
        raise BadImageError(f"{name}: neither an ELF file nor a multiboot header with load addresses")
    try:
        elf = ELFFile(io.BytesIO(image))
        machine = (elf.elfclass, elf.little_endian, elf.header["e_machine"])
        headers = [segment.header for segment in elf.iter_segments() if segment.header["p_type"] == "PT_LOAD"]
        entry = int(elf.header["e_entry"])
    except (ELFError, ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise BadImageError(f"{name}: a damaged ELF file ({error or type(error).__name__})") from error
    if machine != (32, True, "EM_386"):
        raise BadImageError(f"{name}: an ELF file for another processor ({machine[0]}-bit {machine[2]}): 32-bit x86 is needed")
    segments = tuple(_elf_segment(image, header, name) for header in headers if header["p_memsz"])
    if not segments:
        raise BadImageError(f"{name}: an ELF file with nothing to load")
    if len(segments) > MAX_SEGMENTS:
        raise BadImageError(f"{name}: {len(segments)} segments; at most {MAX_SEGMENTS} can be loaded")
    return Kernel(_physical_entry(entry, headers), segments)


def _elf_segment(image: bytes, header: dict[str, int], name: str) -> Segment:
    offset, length, memory = header["p_offset"], header["p_filesz"], header["p_memsz"]
    if offset + length > len(image):
        raise BadImageError(f"{name}: truncated: a segment ends at byte {offset + length}, the file at {len(image)}")
    if length > memory:
        raise BadImageError(f"{name}: a segment has {length} bytes in the file but only {memory} in memory")
    return Segment(header["p_paddr"], image[offset : offset + length], memory)


def _physical_entry(entry: int, headers: list[dict[str, int]]) -> int:
    """The entry point's load address: kernels linked high give a virtual one, while paging is off at entry."""
    for header in headers:
        if header["p_paddr"] <= entry < header["p_paddr"] + header["p_memsz"]:
            return entry
    for header in headers:
        if header["p_vaddr"] <= entry < header["p_vaddr"] + header["p_memsz"]:
            return int(entry - header["p_vaddr"] + header["p_paddr"])
    return entry


def check_fits(kernel: Kernel, memory_bytes: int, name: str) -> None:
    """Raise BadImageError unless all segments and the entry point lie in usable memory."""
    for segment in kernel.segments:
        low = LOW_START <= segment.address and segment.end <= LOW_END
        high = HIGH_START <= segment.address and segment.end <= memory_bytes
        if not low and not high:
            where = f"{segment.address:#x}-{segment.end - 1:#x}"
            usable = f"{LOW_START:#x}-{LOW_END - 1:#x} or {HIGH_START:#x}-{memory_bytes - 1:#x}"
            raise BadImageError(f"{name}: a segment at {where} lies outside usable memory ({usable})")
    if not any(segment.address <= kernel.entry < segment.end for segment in kernel.segments):
        raise BadImageError(f"{name}: the entry point {kernel.entry:#x} lies in no segment")


def place_modules(kernel: Kernel, files: tuple[Path, ...], memory_bytes: int) -> tuple[Module, ...]:
    """Read the module files and put them behind the kernel, on page boundaries; raises BadImageError."""
    if len(files) > MAX_MODULES:
        raise UsageError(f"{len(files)} modules: at most {MAX_MODULES} can be given")
    modules: list[Module] = []
    at = max(kernel.end, HIGH_START)
    for path in files:
        data = read_file(path, "module", memory_bytes)
        at = (at + PAGE_MASK) & ~PAGE_MASK
        if at + len(data) > memory_bytes:
            room = max(0, memory_bytes - at) // KIB
            raise BadImageError(f"{path}: a module of {len(data)} bytes does not fit: {room} KiB of memory are left for it")
        if len(os.fsencode(path.name)) >= MODULE_NAME_BYTES:
            raise UsageError(f"{path}: the name of a module has at most {MODULE_NAME_BYTES - 1} bytes")
        modules.append(Module(path.name, at, data))
        at += len(data)
    return tuple(modules)


def firmware_files(kernel: Kernel, modules: tuple[Module, ...], cmdline: str) -> dict[str, bytes]:
    """What the platform offers the firmware: the files of fw_cfg by name."""
    line = cmdline.encode("utf-8", "surrogateescape")
    if len(line) > MAX_CMDLINE_BYTES:
        raise UsageError(f"a kernel command line of {len(line)} bytes: at most {MAX_CMDLINE_BYTES} can be passed")
    if b"\0" in line:
        raise UsageError("the kernel command line has a NUL character")
    files = {
        "entry": struct.pack("<I", kernel.entry),
        "segments": b"".join(struct.pack("<II", part.address, len(part.data)) for part in kernel.segments),
        "image": b"".join(part.data for part in kernel.segments),
        "cmdline": line + b"\0",
    }
    if modules:
        names = ((module, os.fsencode(module.name)) for module in modules)
        files["modules"] = b"".join(struct.pack("<II56s", m.address, len(m.data), name) for m, name in names)
        files["module-data"] = b"".join(module.data for module in modules)
    return {f"opt/emu/{name}": data for name, data in files.items()}


def load(path: Path, memory_bytes: int, append: str = "", modules: tuple[Path, ...] = ()) -> dict[str, bytes]:
    """The fw_cfg files that boot the kernel at `path`; raises BadImageError or UsageError with a line for the user."""
    kernel = parse(read_file(path, "kernel", MAX_IMAGE_BYTES), str(path))
    check_fits(kernel, memory_bytes, str(path))
    placed = place_modules(kernel, modules, memory_bytes)
    return firmware_files(kernel, placed, f"{path.name} {append}".strip())


class DiskImage:
    """A disk image that is read as the guest asks for it: what `FwCfg` needs of bytes, without their memory.

    A file that shrinks meanwhile reads as zeros beyond its end; one that cannot be read raises BadImageError.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise self._unreadable(error) from error
        weakref.finalize(self, os.close, self._descriptor)
        self._bytes = os.fstat(self._descriptor).st_size

    def _unreadable(self, error: OSError) -> BadImageError:
        return BadImageError(f"{self._path}: cannot read the boot disk: {(error.strerror or str(error)).lower()}")

    def __len__(self) -> int:
        """Size in bytes."""
        return self._bytes

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> bytes: ...
    def __getitem__(self, at: int | slice) -> int | bytes:
        """A byte, or the bytes of a slice without steps."""
        if not isinstance(at, slice):
            return self[at : at + 1][0]
        start, stop, _ = at.indices(self._bytes)
        try:
            data = os.pread(self._descriptor, max(0, stop - start), start)
        except OSError as error:
            raise self._unreadable(error) from error
        return data.ljust(max(0, stop - start), b"\0")


def load_disk(path: Path) -> dict[str, bytes]:
    """The fw_cfg file that boots from the image at `path`; raises BadImageError with a line for the user."""
    if path.exists() and not path.is_file():
        kind = "is a directory" if path.is_dir() else "not a regular file"
        raise BadImageError(f"{path}: cannot read the boot disk: {kind}")
    image = DiskImage(path)
    if not len(image):
        raise BadImageError(f"{path}: the boot disk is empty")
    if len(image) < SECTOR_BYTES:
        raise BadImageError(f"{path}: a boot disk of {len(image)} bytes: expected a sector of {SECTOR_BYTES} at least")
    if len(image) > MAX_DISK_BYTES:
        raise BadImageError(f"{path}: the boot disk does not fit: it has more than {MAX_DISK_BYTES // MIB} MiB")
    return {"opt/emu/boot-disk": cast("bytes", image)}  # as much of bytes as the device uses
