# SPDX-License-Identifier: GPL-2.0-or-later
"""The suite's guests: what is built is what suite.toml runs, and loaders take it."""

from __future__ import annotations

import re
import shutil
import struct
import tomllib
from pathlib import Path

import pytest

from emu.vm import loader
from tests.test_images import ROOT, build_script

SUITE = ROOT / "guests" / "suite"
MAX_IMAGE_BYTES = 256 << 10  # a flat image holds no bss: a large one has data that belongs there
CASE_NAME = re.compile(r'\{"([a-z0-9]+\.[a-z0-9.-]+)", ')


def build(root: Path, out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in build_script(root / "guests" / "build.py").build_suite(out)}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return build(ROOT, tmp_path_factory.mktemp("suite"))


def test_another_folder_gives_the_same_bytes(built: dict[str, bytes], tmp_path: Path) -> None:
    shutil.copytree(ROOT / "guests", tmp_path / "elsewhere" / "guests")
    assert build(tmp_path / "elsewhere", tmp_path / "out") == built


def test_suite_runs_every_image_once(built: dict[str, bytes]) -> None:
    cases = tomllib.loads((SUITE / "suite.toml").read_text(encoding="utf-8"))["case"]
    kernels = [case for case in cases if "boot_disk" not in case and not case["image"].startswith("os-")]
    assert sorted(case["image"] for case in kernels) == sorted(built)
    assert all(case["image"] == f"{case['name']}.bin" for case in kernels)


def test_suite_is_copied_beside_the_images(tmp_path: Path) -> None:
    build(ROOT, tmp_path)
    assert (tmp_path / "suite.toml").read_bytes() == (SUITE / "suite.toml").read_bytes()
    for file in (SUITE / "golden").iterdir():
        assert (tmp_path / "golden" / file.name).read_bytes() == file.read_bytes()


def test_every_golden_file_is_some_cases() -> None:
    cases = tomllib.loads((SUITE / "suite.toml").read_text(encoding="utf-8"))["case"]
    named = {case[key] for case in cases for key in ("golden", "trace") if key in case}
    wanted = {name.replace("{mmu}", mmu) for name in named for mmu in ("shadow", "nested")}
    assert {f"golden/{path.name}" for path in (SUITE / "golden").iterdir()} == wanted


def test_loader_takes_every_image(built: dict[str, bytes]) -> None:
    for name, image in built.items():
        kernel = loader.parse(image, name)
        (segment,) = kernel.segments
        assert segment.address == (0x600 if name.startswith("low-") else 1 << 20)
        assert segment.address <= kernel.entry < segment.address + len(segment.data)
        assert len(image) < MAX_IMAGE_BYTES, name


def test_header_promises_no_more_than_the_file_has(built: dict[str, bytes]) -> None:
    for name, image in built.items():
        at, words = loader.find_header(image, name)
        load, load_end = words[4], words[5]
        assert load_end - load <= len(image) - at, name
        assert struct.unpack_from("<I", image, at)[0] == loader.HEADER_MAGIC


def test_case_names_are_unique_in_their_guest() -> None:
    total = 0
    for source in sorted(SUITE.glob("*.c")):
        names = CASE_NAME.findall(source.read_text(encoding="utf-8"))
        assert len(names) == len(set(names)), source.name
        total += len(names)
    assert total >= 60
