# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests and ROM: the same bytes on every machine, and laid out so that each page is of one kind."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import struct
from pathlib import Path
from types import ModuleType

import pytest
from elftools.elf.elffile import ELFFile

from emu import images

ROOT = Path(__file__).resolve().parent.parent
EXPECTED = Path(__file__).with_name("images.sha256")
UPDATE = "EMU_UPDATE_EXPECTED"  # set it to rewrite what is expected, and review the difference
PAGE_BYTES = 4096
MULTIBOOT_MAGIC = 0x1BADB002
MULTIBOOT_SEARCH_BYTES = 8192


def script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"build_{path.parent.name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build_into(folder: Path) -> dict[str, bytes]:
    script(ROOT / "guests" / "build.py").build(folder)
    script(ROOT / "firmware" / "build.py").build(folder)
    return {item.name: item.read_bytes() for item in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return build_into(tmp_path_factory.mktemp("images"))


def test_another_folder_gives_the_same_bytes(built: dict[str, bytes], tmp_path: Path) -> None:
    assert build_into(tmp_path / "elsewhere" / "deep") == built


def test_every_machine_gives_the_same_bytes(built: dict[str, bytes]) -> None:
    digests = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in built.items())
    if os.environ.get(UPDATE):
        EXPECTED.write_text(digests)
    assert digests == EXPECTED.read_text(), f"a source changed? {UPDATE}=1 rewrites {EXPECTED.name}"


def test_installed_images_are_those_of_the_sources(built: dict[str, bytes]) -> None:
    installed = {info.path.name: info.path.read_bytes() for info in images.guests()}
    assert installed | {"firmware.rom": images.firmware()} == built


def test_pages_of_a_guest_are_of_one_kind() -> None:
    for info in images.guests():
        with info.path.open("rb") as file:
            parts = [part.header for part in ELFFile(file).iter_segments() if part.header["p_type"] == "PT_LOAD"]
        pages = [range(part["p_paddr"] // PAGE_BYTES, -(-(part["p_paddr"] + part["p_memsz"]) // PAGE_BYTES)) for part in parts]
        for number, one in enumerate(pages):
            for other in pages[number + 1 :]:
                assert not set(one) & set(other), f"{info.name}: two segments share a page"
        assert not [part for part in parts if part["p_flags"] & 3 == 3], f"{info.name}: a segment is code and data"


def test_multiboot_header_lies_where_loaders_look() -> None:
    for info in images.guests():
        start = info.path.read_bytes()[:MULTIBOOT_SEARCH_BYTES]
        words = struct.unpack(f"<{len(start) // 4}I", start[: len(start) // 4 * 4])
        assert MULTIBOOT_MAGIC in words, info.name


def test_guests_have_names_and_descriptions_of_a_line() -> None:
    known = images.guests()
    assert len({info.name for info in known}) == len(known) > 0
    for info in known:
        assert info.description
        assert "\n" not in info.description
