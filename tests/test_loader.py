# SPDX-License-Identifier: GPL-2.0-or-later
"""The loader: what it takes apart, and one line of complaint for each thing that is wrong with a file."""

from __future__ import annotations

import os
import struct
import tempfile
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu import images
from emu.errors import BadImageError, UsageError
from emu.units import MIB, PAGE_BYTES
from emu.vm import loader

NOBODY = 65534
MEMORY = 32 * MIB
LOAD = 0x10_0000
CODE = b"\xfa\xf4\xeb\xfd"  # cli; hlt; jmp back to the hlt
ELF_HEADER, PROGRAM_HEADER = struct.Struct("<16sHHIIIIIHHHHHH"), struct.Struct("<8I")
ELFCLASS32, ELFCLASS64, LITTLE_ENDIAN, BIG_ENDIAN = 1, 2, 1, 2
EM_386, EM_X86_64, EM_ARM = 3, 62, 40
PT_LOAD, PT_NOTE = 1, 4


def header(flags: int = 3, *, magic: int = 0x1BADB002, addresses: tuple[int, ...] = ()) -> bytes:
    """A multiboot header with a right checksum."""
    return struct.pack(f"<{3 + len(addresses)}I", magic, flags, -(magic + flags) & 0xFFFF_FFFF, *addresses)


@dataclass(frozen=True)
class Part:
    """A program header; with `data`, its bytes lie in the file and the sizes are theirs unless given."""

    address: int = LOAD
    data: bytes = header() + CODE
    kind: int = PT_LOAD
    virtual: int | None = None
    file_bytes: int | None = None
    memory_bytes: int | None = None


def elf(
    *parts: Part,
    entry: int = LOAD + 12,
    machine: int = EM_386,
    elf_class: int = ELFCLASS32,
    order: int = LITTLE_ENDIAN,
) -> bytes:
    """An ELF32 file: header, program headers, then the parts' data one after another."""
    ident = bytes([0x7F, *b"ELF", elf_class, order, 1]).ljust(16, b"\0")
    at = ELF_HEADER.size + len(parts) * PROGRAM_HEADER.size
    header_bytes = ELF_HEADER.pack(
        ident, 2, machine, 1, entry, ELF_HEADER.size, 0, 0, ELF_HEADER.size, PROGRAM_HEADER.size, len(parts), 40, 0, 0
    )
    table, data = b"", b""
    for part in parts:
        length = len(part.data) if part.file_bytes is None else part.file_bytes
        memory = length if part.memory_bytes is None else part.memory_bytes
        virtual = part.address if part.virtual is None else part.virtual
        table += PROGRAM_HEADER.pack(part.kind, at + len(data), virtual, part.address, length, memory, 7, 4)
        data += part.data
    return header_bytes + table + data


def flat(
    *, load: int = LOAD, load_end: int = 0, bss_end: int = 0, entry: int = LOAD + 32, at: int = 0, tail: bytes = CODE
) -> bytes:
    """An image whose header, at `at`, says where the file goes."""
    return bytes(at) + header(1 << 16, addresses=(LOAD + at, load, load_end, bss_end, entry)) + tail


def with_field(image: bytes, at: int, value: int, size: int = 4) -> bytes:
    """An image with a field changed."""
    return image[:at] + value.to_bytes(size, "little") + image[at + size :]


def parse_and_fit(image: bytes) -> loader.Kernel:
    kernel = loader.parse(image, "k.elf")
    loader.check_fits(kernel, MEMORY, "k.elf")
    return kernel


# ---- what is right ----


def test_an_elf_file() -> None:
    kernel = parse_and_fit(elf(Part(memory_bytes=0x5000)))
    assert kernel == loader.Kernel(LOAD + 12, (loader.Segment(LOAD, header() + CODE, 0x5000),))
    assert kernel.end == LOAD + 0x5000


def test_several_segments_keep_their_order_and_notes_are_not_loaded() -> None:
    parts = (Part(0x20_0000, b"data"), Part(kind=PT_NOTE, address=0, data=b"note"), Part())
    kernel = parse_and_fit(elf(*parts))
    assert [(part.address, part.data) for part in kernel.segments] == [(0x20_0000, b"data"), (LOAD, header() + CODE)]


def test_empty_segments_are_left_out() -> None:
    assert len(parse_and_fit(elf(Part(), Part(address=0, data=b""))).segments) == 1


def test_conventional_memory_may_be_loaded_to() -> None:
    parse_and_fit(elf(Part(loader.LOW_START), entry=loader.LOW_START + 12))
    parse_and_fit(elf(Part(loader.LOW_START, memory_bytes=loader.LOW_END - loader.LOW_START), entry=loader.LOW_START + 12))


def test_the_last_byte_of_memory_may_be_loaded_to() -> None:
    parse_and_fit(elf(Part(memory_bytes=MEMORY - LOAD)))


@pytest.mark.parametrize("entry", [0xC000_000C + LOAD, LOAD + 12])
def test_a_kernel_linked_high_is_entered_where_it_was_loaded(entry: int) -> None:
    kernel = parse_and_fit(elf(Part(virtual=0xC000_0000 + LOAD), entry=entry))
    assert kernel.entry == LOAD + 12
    assert kernel.segments[0].address == LOAD


def test_address_fields() -> None:
    kernel = parse_and_fit(flat(bss_end=LOAD + 0x3000))
    assert kernel == loader.Kernel(LOAD + 32, (loader.Segment(LOAD, flat(bss_end=LOAD + 0x3000), 0x3000),))


def test_address_fields_may_leave_out_the_file_s_head_and_tail() -> None:
    image = flat(at=16, load=LOAD + 16, load_end=LOAD + 16 + 32 + len(CODE), entry=LOAD + 48) + b"symbols"
    kernel = parse_and_fit(image)
    assert kernel.segments == (loader.Segment(LOAD + 16, image[16:-7], 32 + len(CODE)),)


def test_address_fields_win_over_an_elf_header() -> None:
    """Multiboot 0.6.96, 3.1.2: with bit 16 the fields hold, whatever else the file is."""
    inner = elf(Part(address=0x20_0000, data=bytes(64)))
    image = inner.ljust(256, b"\0") + header(1 << 16, addresses=(LOAD + 256, LOAD, 0, 0, LOAD + 256)) + CODE
    assert parse_and_fit(image).segments[0].address == LOAD


@pytest.mark.parametrize("at", [0, 4, 8192 - 12])
def test_the_header_may_lie_anywhere_in_its_window(at: int) -> None:
    assert loader.find_header(bytes(at) + header(), "k")[0] == at


def test_a_wrong_header_before_the_right_one_is_passed_over() -> None:
    bad = struct.pack("<3I", 0x1BADB002, 3, 1)
    assert loader.find_header(bad + header(), "k")[0] == len(bad)


def test_optional_flags_are_no_matter() -> None:
    assert loader.find_header(header(0x8002_0003), "k")[1][1] == 0x8002_0003


def test_every_guest_that_comes_with_emu_is_taken() -> None:
    for info in images.guests():
        files = loader.load(info.path, MEMORY)
        assert files["opt/emu/cmdline"] == f"{info.path.name}\0".encode()
        assert struct.unpack("<I", files["opt/emu/entry"])[0] >= LOAD


# ---- what is wrong ----

BAD_IMAGES = {
    "empty": (b"", "the file is empty"),
    "a few bytes": (b"MZ", "no multiboot header in the first 8192 bytes"),
    "text": (b"#!/bin/sh\necho hello\n" * 30, "no multiboot header"),
    "not multiboot": (elf(Part(data=CODE * 8)), "no multiboot header"),
    "header beyond its window": (bytes(8192) + header(), "no multiboot header in the first 8192 bytes"),
    "header across the window's end": (bytes(8192 - 8) + header(), "no multiboot header"),
    "header off its alignment": (bytes(2) + header(), "no multiboot header"),
    "bad checksum": (elf(Part(data=header()[:8] + b"\1\2\3\4" + CODE)), "no multiboot header"),
    "unknown requirement": (elf(Part(data=header(1 << 3) + CODE)), "requires features 0x8"),
    "video mode": (elf(Part(data=header(1 << 2) + CODE)), "video mode"),
    "video mode and more": (elf(Part(data=header(1 << 2 | 1 << 9) + CODE)), "requires features 0x204"),
    "truncated magic": (header()[:11], "no multiboot header"),
    "truncated address fields": (flat()[:31], "ends inside its multiboot header"),
    "header alone": (header(), "neither an ELF file nor"),
    "truncated ELF header": ((elf(Part())[:20] + header()).ljust(40, b"\0"), "damaged ELF file"),
    "program headers beyond the file": (with_field(elf(Part()), 28, 0xFFFF_FFE0), "program headers end at byte 4294967296"),
    "program headers of another size": (with_field(elf(Part()), 42, 56, 2), "program headers of 56 bytes, not 32"),
    "program headers without number": (with_field(elf(Part()), 44, 0xFFFF, 2), "65535 program headers; at most 1024"),
    "data beyond any file": (elf(Part(file_bytes=0xFFFF_FFFF)), "truncated: a segment ends at byte"),
    "overlapping": (elf(Part(), Part(LOAD + 8)), "overlapping segments: 0x100000-0x10000f and 0x100008-0x100017"),
    "overlapping by what is zero": (elf(Part(memory_bytes=0x2000), Part(LOAD + 0x1FFF)), "overlapping segments"),
    "one inside another": (elf(Part(LOAD + 0x1000), Part(memory_bytes=0x9000)), "overlapping segments"),
    "all the same": (elf(*(Part() for _ in range(64))), "overlapping segments"),
    "truncated data": (elf(Part(data=header() + CODE * 100))[:-200], "truncated"),
    "nothing to load": (elf(Part(kind=PT_NOTE)), "nothing to load"),
    "no program headers": (elf() + header(), "nothing to load"),
    "file bigger than memory": (elf(Part(memory_bytes=4)), "but only 4 in memory"),
    "too many segments": (elf(*(Part(LOAD + i * PAGE_BYTES) for i in range(65))), "65 segments; at most 64"),
    "64-bit class": (elf(Part(), elf_class=ELFCLASS64), "another processor (64-bit x86)"),
    "other processor": (elf(Part(), machine=EM_ARM), "another processor (32-bit ARM)"),
    "x32": (elf(Part(), machine=EM_X86_64), "another processor"),
    "big-endian": (elf(Part(), order=BIG_ENDIAN), "another processor (big-endian 32-bit x86)"),
    "beyond memory": (elf(Part(MEMORY - 4), entry=MEMORY - 4), "outside usable memory: the machine has 32 MiB"),
    "far beyond memory": (elf(Part(0xC000_0000), entry=0xC000_000C), "outside usable memory"),
    "wraps around": (elf(Part(0xFFFF_F000, memory_bytes=0x2000), entry=0xFFFF_F00C), "outside usable memory"),
    "large memory size": (elf(Part(memory_bytes=0xFFFF_FFFF)), "outside usable memory"),
    "address 0": (elf(Part(0), entry=12), "outside usable memory: 0x0-0x4ff is taken by interrupt vectors"),
    "BIOS data": (
        elf(Part(0x4FC), entry=0x4FC),
        "outside usable memory: 0x0-0x4ff is taken by interrupt vectors and the BIOS data",
    ),
    "extended BIOS data": (elf(Part(0x9_FC00), entry=0x9_FC0C), "outside usable memory: 0x9fc00-0xfffff is taken by"),
    "video hole": (elf(Part(0xA_0000), entry=0xA_000C), "outside usable memory"),
    "ROM": (elf(Part(0xF_0000), entry=0xF_000C), "outside usable memory"),
    "from below 1 MiB across it": (elf(Part(0xF_FFF0), entry=0xF_FFFC), "outside usable memory"),
    "from low memory across the hole": (
        elf(Part(0x9_0000, memory_bytes=0x10_0000), entry=0x9_000C),
        "outside usable memory",
    ),
    "entry in no segment": (elf(Part(), entry=0x30_0000), "entry point 0x300000 lies in no segment"),
    "entry at the end": (elf(Part(data=header() + CODE), entry=LOAD + 16), "lies in no segment"),
    "entry 0": (elf(Part(), entry=0), "lies in no segment"),
    "flat: entry outside": (flat(entry=LOAD + 0x1000), "lies in no segment"),
    "flat: load before the file": (flat(load=LOAD - 4), "load_addr 0xffffc does not agree with header_addr"),
    "flat: load behind the header": (flat(load=LOAD + 4), "does not agree"),
    "flat: load end before load": (flat(load_end=LOAD - 16), "is not beyond load_addr"),
    "flat: load end is load": (flat(load_end=LOAD), "is not beyond load_addr"),
    "flat: load end beyond the file": (flat(load_end=LOAD + 0x1000), "truncated"),
    "flat: bss before data end": (flat(bss_end=LOAD + 4), "bss_end_addr"),
    "flat: outside memory": (flat(bss_end=0xFFFF_FFFF), "outside usable memory"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_a_bad_image_is_refused_in_one_line(case: str) -> None:
    image, words = BAD_IMAGES[case]
    with pytest.raises(BadImageError) as caught:
        parse_and_fit(image)
    message = str(caught.value)
    assert message.startswith("k.elf: ")
    assert words in message
    assert "\n" not in message
    assert message.isprintable()


@pytest.mark.parametrize("length", range(0, len(elf(Part())) - len(CODE), 7))
def test_an_elf_file_cut_short_anywhere_is_refused(length: int) -> None:
    with pytest.raises(BadImageError):
        parse_and_fit(elf(Part())[:length])


VALID = elf(Part(memory_bytes=0x3000), Part(0x20_0000, b"more data" * 4), Part(kind=PT_NOTE, data=b"note"))


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=12),
    st.integers(0, len(VALID)),
)
def test_a_damaged_elf_file_is_taken_or_refused(changes: list[tuple[int, int]], cut: int) -> None:
    image = bytearray(VALID)
    for at, value in changes:
        image[at] = value
    for damaged in (bytes(image), bytes(image[:cut])):
        try:
            kernel = parse_and_fit(damaged)
        except BadImageError as error:
            assert "\n" not in str(error)
        else:
            assert any(part.address <= kernel.entry < part.end for part in kernel.segments)
            assert all(len(part.data) <= part.memory_bytes for part in kernel.segments)


FIELDS = st.sampled_from([0, 1, 2, 3, 0x7F, 0x34, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF])


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(4, (52 + 3 * 32) // 2 - 2), FIELDS, st.booleans()), min_size=1, max_size=4))
def test_elf_headers_with_edge_values_are_taken_or_refused(changes: list[tuple[int, int, bool]]) -> None:
    """Aimed at the fields, which random bytes rarely make meaningful."""
    image = bytearray(VALID)
    for half, value, is_word in changes:
        struct.pack_into("<I" if is_word else "<H", image, 2 * half, value if is_word else value & 0xFFFF)
    try:
        parse_and_fit(bytes(image))
    except BadImageError as error:
        assert "\n" not in str(error)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 0xFFFF_FFFF) | FIELDS | st.integers(LOAD, LOAD + 64), min_size=5, max_size=5))
def test_address_fields_of_any_value_are_taken_or_refused(fields: list[int]) -> None:
    try:
        kernel = parse_and_fit(header(1 << 16, addresses=tuple(fields)) + CODE)
    except BadImageError:
        return
    assert len(kernel.segments[0].data) <= kernel.segments[0].memory_bytes


# ---- files ----


@pytest.fixture
def kernel() -> loader.Kernel:
    return loader.Kernel(LOAD, (loader.Segment(LOAD, CODE, 0x1234),))


def make(folder: Path, name: str, data: bytes = b"data") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def test_a_missing_kernel(tmp_path: Path) -> None:
    with pytest.raises(BadImageError, match="absent: cannot read the kernel: no such file"):
        loader.load(tmp_path / "absent", MEMORY)


def test_a_folder_is_no_kernel(tmp_path: Path) -> None:
    with pytest.raises(BadImageError, match="cannot read the kernel: is a directory"):
        loader.load(tmp_path, MEMORY)


@pytest.fixture
def forbidden() -> Iterator[Path]:
    """A file that this process may not read, in a folder that it may: root takes another user's rights meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = make(Path(folder), "forbidden")
        path.chmod(0)
        mine = os.geteuid()
        if mine == 0:
            os.seteuid(NOBODY)
        try:
            yield path
        finally:
            os.seteuid(mine)


def test_a_kernel_without_permission(forbidden: Path) -> None:
    with pytest.raises(BadImageError, match="permission denied"):
        loader.load(forbidden, MEMORY)


def test_modules_follow_the_kernel_on_page_boundaries(kernel: loader.Kernel, tmp_path: Path) -> None:
    files = (make(tmp_path, "a", b"a" * 5000), make(tmp_path, "b", b""), make(tmp_path, "c", b"c"))
    placed = loader.place_modules(kernel, files, MEMORY)
    assert [(m.name, m.address, len(m.data)) for m in placed] == [
        ("a", LOAD + 0x2000, 5000),
        ("b", LOAD + 0x4000, 0),
        ("c", LOAD + 0x4000, 1),
    ]


def test_modules_of_a_kernel_in_low_memory_lie_above_1_mib(tmp_path: Path) -> None:
    low = loader.Kernel(loader.LOW_START, (loader.Segment(loader.LOW_START, CODE, 4),))
    assert loader.place_modules(low, (make(tmp_path, "a"),), MEMORY)[0].address == MIB


def test_a_module_that_just_fits_and_one_byte_more(kernel: loader.Kernel, tmp_path: Path) -> None:
    room = 4 * MIB - (LOAD + 0x2000)
    loader.place_modules(kernel, (make(tmp_path, "a", bytes(room)),), 4 * MIB)
    with pytest.raises(BadImageError, match=r"a: a module of \d+ bytes does not fit"):
        loader.place_modules(kernel, (make(tmp_path, "a", bytes(room + 1)),), 4 * MIB)


def test_two_modules_that_fit_only_alone(kernel: loader.Kernel, tmp_path: Path) -> None:
    both = (make(tmp_path, "a", bytes(2 * MIB)), make(tmp_path, "b", bytes(MIB)))
    with pytest.raises(BadImageError, match="b: a module of"):
        loader.place_modules(kernel, both, 4 * MIB)


def test_too_many_modules(kernel: loader.Kernel, tmp_path: Path) -> None:
    path = make(tmp_path, "a")
    assert len(loader.place_modules(kernel, (path,) * 64, MEMORY)) == 64
    with pytest.raises(UsageError, match="65 modules: at most 64"):
        loader.place_modules(kernel, (path,) * 65, MEMORY)


@pytest.mark.parametrize(("name", "fits"), [("m" * 55, True), ("m" * 56, False), ("é" * 28, False)])
def test_a_module_s_name_is_counted_in_bytes(kernel: loader.Kernel, tmp_path: Path, name: str, fits: bool) -> None:
    path = make(tmp_path, name)
    if fits:
        assert loader.place_modules(kernel, (path,), MEMORY)[0].name == name
        return
    with pytest.raises(UsageError, match="the name of a module has at most 55 bytes"):
        loader.place_modules(kernel, (path,), MEMORY)


def test_a_module_s_name_need_not_be_utf_8(kernel: loader.Kernel, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/name\xff"))
    path.write_bytes(b"data")
    placed = loader.place_modules(kernel, (path,), MEMORY)
    assert b"name\xff\0" in loader.firmware_files(kernel, placed, "")["opt/emu/modules"]


@pytest.mark.parametrize("kind", ["folder", "missing"])
def test_an_unreadable_module(kernel: loader.Kernel, tmp_path: Path, kind: str) -> None:
    path = tmp_path if kind == "folder" else tmp_path / "absent"
    with pytest.raises(BadImageError, match="cannot read the module"):
        loader.place_modules(kernel, (path,), MEMORY)


def test_a_module_without_permission(kernel: loader.Kernel, forbidden: Path) -> None:
    with pytest.raises(BadImageError, match="permission denied"):
        loader.place_modules(kernel, (forbidden,), MEMORY)


@pytest.mark.parametrize("kind", ["kernel", "module", "boot disk"])
def test_what_never_ends_or_never_begins(kernel: loader.Kernel, tmp_path: Path, kind: str) -> None:
    """A device, a pipe that nobody writes to: refused at once."""
    load = {
        "kernel": lambda path: loader.load(path, MEMORY),
        "module": lambda path: loader.place_modules(kernel, (path,), MEMORY),
        "boot disk": loader.load_disk,
    }[kind]
    os.mkfifo(tmp_path / "fifo")
    for path, why in (
        (Path("/dev/zero"), "not a regular file"),
        (tmp_path / "fifo", "a pipe|not a regular"),
        (tmp_path, "is a directory"),
    ):
        with pytest.raises(BadImageError, match=f"cannot read the {kind}: .*{why}"):
            load(path)


def test_a_kernel_may_come_from_a_pipe_s_writer() -> None:
    image = elf(Part(data=header() + CODE * 100_000))  # more than a pipe holds
    reading, writing = os.pipe()
    with ThreadPoolExecutor(1) as writer, os.fdopen(writing, "wb") as pipe, os.fdopen(reading):
        writer.submit(lambda: (pipe.write(image), pipe.close()))
        files = loader.load(Path(f"/dev/fd/{reading}"), MEMORY)
    assert files["opt/emu/image"] == header() + CODE * 100_000


def test_huge_files_are_not_read(kernel: loader.Kernel, tmp_path: Path) -> None:
    """A terabyte of holes: a kernel with much behind it is loaded, and a module is refused."""
    path = make(tmp_path, "huge", elf(Part()))
    os.truncate(path, 1 << 40)
    tracemalloc.start()
    try:
        assert loader.load(path, MEMORY)["opt/emu/image"] == header() + CODE
        with pytest.raises(BadImageError, match=f"a module of {1 << 40} bytes does not fit"):
            loader.place_modules(kernel, (path,), MEMORY)
        with pytest.raises(BadImageError, match="more than 4095 MiB"):
            loader.load_disk(path)
        path.write_bytes(flat())
        os.truncate(path, 1 << 40)
        with pytest.raises(BadImageError, match="outside usable memory"):
            loader.load(path, MEMORY)
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


# ---- where the multiboot information goes ----


def tables_of(*places: tuple[int, int], memory_bytes: int = MEMORY) -> int:
    segments = tuple(loader.Segment(address, b"", end - address) for address, end in places)
    return loader.place_tables(loader.Kernel(LOAD, segments), (), memory_bytes, "k")


@pytest.mark.parametrize(
    ("places", "tables"),
    [
        ([(LOAD, LOAD + 8)], 0x9000),
        ([(0x8000, 0x9000), (0xB800, 0xB801)], 0x9000),
        ([(0x8000, 0x9001)], 0x9_D000),
        ([(0xB7FF, 0xB800)], 0x9_D000),
        ([(0x8000, 0x9_E000)], 0x1000),
        ([(0x1800, 0x9_E000)], 0x10_0000),
        ([(0x500, 0x9_FC00), (LOAD, LOAD + 0x1801)], 0x10_2000),
        ([(0x500, 0x2_0000), (0x3_0000, 0x9_FC00)], 0x2_0000),
    ],
)
def test_the_multiboot_information_keeps_clear_of_the_kernel(places: list[tuple[int, int]], tables: int) -> None:
    assert tables_of(*places) == tables


def test_a_kernel_that_leaves_no_room() -> None:
    assert tables_of((0x500, 0x9_FC00), (LOAD, MEMORY - 0x3000)) == MEMORY - 0x3000
    with pytest.raises(BadImageError, match="no room for 10 KiB of multiboot information"):
        tables_of((0x500, 0x9_FC00), (LOAD, MEMORY))


# ---- what the firmware is offered ----


def test_the_firmware_s_files(tmp_path: Path) -> None:
    kernel = loader.Kernel(LOAD + 4, (loader.Segment(LOAD, b"abcd", 8), loader.Segment(0x20_0000, b"ef", 2)))
    placed = loader.place_modules(kernel, (make(tmp_path, "m1", b"one"), make(tmp_path, "m2", b"two!")), MEMORY)
    assert loader.firmware_files(kernel, placed, "k arguments") == {
        "opt/emu/entry": struct.pack("<I", LOAD + 4),
        "opt/emu/segments": struct.pack("<4I", LOAD, 4, 0x20_0000, 2),
        "opt/emu/image": b"abcdef",
        "opt/emu/tables": struct.pack("<I", 0x9000),
        "opt/emu/cmdline": b"k arguments\0",
        "opt/emu/modules": struct.pack("<II56sII56s", 0x20_1000, 3, b"m1", 0x20_2000, 4, b"m2"),
        "opt/emu/module-data": b"onetwo!",
    }


def test_a_command_line_of_the_longest_length_and_one_more(kernel: loader.Kernel) -> None:
    assert loader.firmware_files(kernel, (), "x" * 4095)["opt/emu/cmdline"] == b"x" * 4095 + b"\0"
    with pytest.raises(UsageError, match="4096 bytes: at most 4095"):
        loader.firmware_files(kernel, (), "x" * 4096)
    with pytest.raises(UsageError, match="4096 bytes"):
        loader.firmware_files(kernel, (), "é" * 2048)


def test_a_command_line_with_nul(kernel: loader.Kernel) -> None:
    with pytest.raises(UsageError, match="NUL"):
        loader.firmware_files(kernel, (), "a\0b")


def test_a_command_line_need_not_be_utf_8(kernel: loader.Kernel) -> None:
    line = os.fsdecode(b"caf\xe9")
    assert loader.firmware_files(kernel, (), line)["opt/emu/cmdline"] == b"caf\xe9\0"
