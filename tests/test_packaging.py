# SPDX-License-Identifier: GPL-2.0-or-later
"""The wheel carries the guests and needs no compiler; the source archive carries what a wheel is built from."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from emu import images

ROOT = Path(__file__).resolve().parent.parent
IMAGES = {f"emu/images/{name}" for name in ("firmware.rom", "guests.json")}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive of the checkout, unpacked: building there leaves the checkout's own images alone."""
    folder = tmp_path_factory.mktemp("sdist")
    build("--sdist", ROOT, folder)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    (unpacked,) = (item for item in folder.iterdir() if item.is_dir())
    return unpacked


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build("--wheel", source, folder)
    (built,) = folder.glob("*.whl")
    return built


def build(kind: str, project: Path, into: Path) -> None:
    command = [sys.executable, "-m", "build", kind, "--no-isolation", "--outdir", str(into), str(project)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_source_archive_has_what_the_wheel_is_built_from(source: Path) -> None:
    wanted = ("guests/bench.c", "guests/lib/kernel.ld", "firmware/reset.S", "hatch_build.py", "scripts/emu", "LICENSE")
    assert [name for name in wanted if not (source / name).exists()] == []
    assert not (source / "emu" / "images").exists(), "built files are not part of the sources"


def test_wheel_is_for_any_machine_and_has_the_guests(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    guests = {f"emu/images/{info.path.name}" for info in images.guests()}
    assert names(wheel) >= guests | IMAGES
    assert not [name for name in names(wheel) if name.endswith((".c", ".S", ".h", ".ld"))]


def test_wheel_is_the_same_twice(wheel: Path, source: Path, tmp_path: Path) -> None:
    build("--wheel", source, tmp_path)
    (again,) = tmp_path.glob("*.whl")
    assert again.read_bytes() == wheel.read_bytes()


def test_guests_of_the_wheel_are_found_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    """Unpacked beside this environment's dependencies: nothing but the wheel's own files can answer."""
    installed = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    environment = os.environ | {"PYTHONPATH": str(installed)}
    command = [sys.executable, "-m", "emu", "guests"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == [info.name for info in images.guests()]
    where = [sys.executable, "-c", "import emu; print(emu.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.startswith(str(installed))


def test_entry_point(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (entry,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "emu = emu.cli:run" in archive.read(entry).decode()
