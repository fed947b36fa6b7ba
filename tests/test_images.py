# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests and ROM: the same bytes on every machine, and laid out so that each page is of one kind.

`EMU_UPDATE_EXPECTED=1 scripts/test tests/test_images.py` records new digests after a change of guests/ or firmware/.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import os
import re
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from elftools.elf.elffile import ELFFile

from emu import images
from emu.errors import EmuError, UsageError
from emu.units import PAGE_BYTES

ROOT = Path(__file__).resolve().parent.parent
EXPECTED = Path(__file__).with_name("images.sha256")  # as sha256sum writes and checks it
UPDATE = "EMU_UPDATE_EXPECTED"  # set it to rewrite what is expected, and review the difference
MULTIBOOT_MAGIC = 0x1BADB002
MULTIBOOT_SEARCH_BYTES = 8192
ROM_BYTES = 0x1_0000
RESET_VECTOR = 0xFFF0  # FFFFFFF0, in a ROM that ends with the address space
JUMPS = {0xE9, 0xEA, 0xEB}  # near, far, short


def build_script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"images_{path.parent.name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(root: Path, out: Path) -> dict[str, bytes]:
    """File name to contents of what the sources under `root` make."""
    guests = build_script(root / "guests" / "build.py")
    files = [
        *guests.build(out),
        *guests.build_systems(out),
        *guests.build_disks(out),
        build_script(root / "firmware" / "build.py").build(out),
    ]
    return {file.name: file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return build(ROOT, tmp_path_factory.mktemp("images"))


def test_another_folder_gives_the_same_bytes(built: dict[str, bytes], tmp_path: Path) -> None:
    for folder in ("guests", "firmware"):
        shutil.copytree(ROOT / folder, tmp_path / "a longer way to" / folder)
    assert build(tmp_path / "a longer way to", tmp_path / "out of it") == built


def test_every_machine_gives_the_same_bytes(built: dict[str, bytes]) -> None:
    digests = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(built.items()))
    if os.environ.get(UPDATE):
        EXPECTED.write_text(digests, encoding="ascii")
    assert digests == EXPECTED.read_text(encoding="ascii"), f"a source changed? {UPDATE}=1 rewrites {EXPECTED.name}"


def test_installed_images_are_those_of_the_sources(built: dict[str, bytes]) -> None:
    installed = {info.path.name: info.path.read_bytes() for info in images.guests()} | {"firmware.rom": images.firmware()}
    installed |= {path.name: path.read_bytes() for path in images.FOLDER.glob("*.img")}
    stale = {name for name in built.keys() | installed.keys() if built.get(name) != installed.get(name)}
    assert not stale, "older or newer than guests/ and firmware/: run scripts/setup"


GUESTS = images.guests()
ELF_GUESTS = [info for info in GUESTS if info.path.suffix == ".elf"]
each_guest = pytest.mark.parametrize("info", GUESTS, ids=[info.name for info in GUESTS])
each_elf_guest = pytest.mark.parametrize("info", ELF_GUESTS, ids=[info.name for info in ELF_GUESTS])


@dataclass(frozen=True)
class Segment:
    address: int  # where it is loaded
    file_bytes: int
    memory_bytes: int
    offset: int  # in the file
    flags: int

    @property
    def pages(self) -> range:
        return range(self.address // PAGE_BYTES, -(-(self.address + self.memory_bytes) // PAGE_BYTES))


def segments(path: Path) -> list[Segment]:
    with path.open("rb") as file:
        headers = [segment.header for segment in ELFFile(file).iter_segments("PT_LOAD")]
    return [Segment(h.p_paddr, h.p_filesz, h.p_memsz, h.p_offset, h.p_flags) for h in headers]


@each_elf_guest
def test_segments_share_no_page(info: images.GuestInfo) -> None:
    for first, second in itertools.combinations(segments(info.path), 2):
        shared = range(max(first.pages.start, second.pages.start), min(first.pages.stop, second.pages.stop))
        assert not shared, (first, second)


@each_elf_guest
def test_segments_begin_on_pages_and_lie_in_the_file(info: images.GuestInfo) -> None:
    size = info.path.stat().st_size
    for segment in segments(info.path):
        assert segment.address % PAGE_BYTES == 0
        assert segment.offset % PAGE_BYTES == 0
        assert segment.file_bytes <= segment.memory_bytes
        assert segment.offset + segment.file_bytes <= size


@each_elf_guest
def test_no_segment_is_both_written_and_executed(info: images.GuestInfo) -> None:
    write, execute = 2, 1
    flags = [segment.flags for segment in segments(info.path)]
    assert all(flag & (write | execute) != write | execute for flag in flags)
    assert any(flag & execute for flag in flags)
    assert any(flag & write for flag in flags)


@each_elf_guest
def test_entry_is_loaded_code(info: images.GuestInfo) -> None:
    with info.path.open("rb") as file:
        elf = ELFFile(file)
        assert (elf.elfclass, elf.little_endian, elf["e_machine"], elf["e_type"]) == (32, True, "EM_386", "ET_EXEC")
        entry = elf["e_entry"]
    code = [segment for segment in segments(info.path) if segment.flags & 1]
    assert any(segment.address <= entry < segment.address + segment.file_bytes for segment in code)


@each_guest
def test_one_multiboot_header_where_loaders_look(info: images.GuestInfo) -> None:
    head = info.path.read_bytes()[:MULTIBOOT_SEARCH_BYTES]
    words = struct.unpack(f"<{len(head) // 4}I", head[: len(head) & ~3])
    found = [words[at : at + 3] for at, word in enumerate(words) if word == MULTIBOOT_MAGIC]
    assert len(found) == 1
    assert sum(found[0]) & 0xFFFF_FFFF == 0


def test_guests_are_those_of_the_table_in_its_order() -> None:
    script = build_script(ROOT / "guests" / "build.py")
    table = [*script.guests(), *script.SYSTEMS]
    assert [(info.name, info.description) for info in GUESTS] == [(guest.name, guest.description) for guest in table]


def test_names_can_be_typed_and_descriptions_fit_a_line() -> None:
    assert len({info.name for info in GUESTS}) == len(GUESTS) > 0
    for info in GUESTS:
        assert re.fullmatch(r"[a-z][a-z0-9_-]*", info.name)
        assert re.fullmatch(r"[a-z][ -~]{9,99}(?<![. ])", info.description)


@each_guest
def test_guest_is_found_by_name(info: images.GuestInfo) -> None:
    assert images.guest(info.name) == info.path


@pytest.mark.parametrize("name", ["nosuch", "", "../hello", "hello.elf", "firmware"])
def test_unknown_guest_is_refused_naming_the_known(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        images.guest(name)
    meant = '; did you mean "hello"?' if "hello" in name else f"; known are {', '.join(info.name for info in GUESTS)}"
    assert str(caught.value) == f'unknown guest "{name}"{meant}'


def test_images_that_were_not_built_say_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(images, "FOLDER", tmp_path / "nowhere")
    for read in (images.guests, images.firmware, lambda: images.guest("hello")):
        with pytest.raises(EmuError, match=r"nowhere: .* install it again, or use scripts/emu") as caught:
            read()
        assert "\n" not in str(caught.value)


def test_rom_fills_its_window_and_starts_at_the_reset_vector() -> None:
    rom = images.firmware()
    assert len(rom) == ROM_BYTES
    assert rom[RESET_VECTOR] in JUMPS
