# SPDX-License-Identifier: GPL-2.0-or-later
"""Build hook: the guests and the boot ROM are made from source into emu/images/, which the wheel carries."""

from __future__ import annotations

import importlib
import importlib.util
import json
import shutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

IMAGES = "emu/images"
MADE = "made.txt"  # in it: the names of all that was built


def load_script(path: Path) -> ModuleType:
    """Import a build script by its path: neither guests/ nor firmware/ is a package."""
    spec = importlib.util.spec_from_file_location(f"emu_build_{path.parent.name}", path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_package_module(root: Path, name: str) -> ModuleType:
    """Import a module of the package that is being built, which needs no more than the standard library."""
    sys.path.insert(0, str(root))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(root))


def build_images(root: Path) -> None:
    """Make every guest, the ROM and their index in emu/images/ of a checkout, in place of those made before."""
    target = root / IMAGES
    scratch = Path(tempfile.mkdtemp(prefix="images.new-", dir=target.parent))
    try:
        _build_into(scratch, root)
        replace_made(target, scratch)
    finally:
        shutil.rmtree(scratch)  # made here, a moment ago


def _build_into(scratch: Path, root: Path) -> None:
    guests = load_script(root / "guests" / "build.py")
    guests.build(scratch)
    guests.build_systems(scratch)
    guests.build_suite(scratch / "suite")
    guests.build_disks(scratch)
    load_package_module(root, "emu.diskimage.make").make(
        scratch / "suite" / guests.SUITE_DISK, guests.SUITE_DISK_FILES, guests.SUITE_DISK_SWAP
    )
    load_script(root / "firmware" / "build.py").build(scratch)
    index = [{"name": guest.name, "description": guest.description} for guest in guests.guests()]
    index += [{"name": system.name, "description": system.description, "file": f"{system.name}.bin"} for system in guests.SYSTEMS]
    index += [{"name": disk.name, "description": disk.description, "is_disk": True} for disk in guests.disks()]
    (scratch / "guests.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def replace_made(target: Path, scratch: Path) -> None:
    """Move all files of `scratch` to `target` and remove those that were made before and are no more; others there stay."""
    new = sorted(path.relative_to(scratch).as_posix() for path in scratch.rglob("*") if path.is_file())
    made = target / MADE
    before = made.read_text(encoding="utf-8").splitlines() if made.exists() else []
    for name in [*before, *new]:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
    made.write_text("".join(f"{name}\n" for name in sorted({*before, *new})), encoding="utf-8")  # of a build that ends here, too
    for name in new:
        (scratch / name).replace(target / name)
    for name in set(before) - set(new):
        (target / name).unlink(missing_ok=True)
    made.write_text("".join(f"{name}\n" for name in new), encoding="utf-8")


class ImagesBuildHook(BuildHookInterface[Any]):
    """Runs for wheels and editable installs."""

    PLUGIN_NAME = "custom"

    def initialize(self, _version: str, _build_data: dict[str, Any]) -> None:
        """Build before files are collected."""
        build_images(Path(self.root))
