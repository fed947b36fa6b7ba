# SPDX-License-Identifier: GPL-2.0-or-later
"""Build hook: the guests and the boot ROM are made from source into emu/images/, which the wheel carries."""

from __future__ import annotations

import importlib
import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

IMAGES = "emu/images"


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
    """Make every guest, the ROM and their index in emu/images/ of a checkout, replacing what is there."""
    target = root / IMAGES
    scratch = target.with_name("images.new")
    shutil.rmtree(scratch, ignore_errors=True)
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
    shutil.rmtree(target, ignore_errors=True)
    scratch.rename(target)


class ImagesBuildHook(BuildHookInterface[Any]):
    """Runs for wheels and editable installs."""

    PLUGIN_NAME = "custom"

    def initialize(self, _version: str, _build_data: dict[str, Any]) -> None:
        """Build before files are collected."""
        build_images(Path(self.root))
