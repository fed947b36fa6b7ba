# SPDX-License-Identifier: GPL-2.0-or-later
"""Compiles the fuzz guest, once a process, with the numbers of `layout` as macros."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.truth import layout

SOURCES = Path(__file__).resolve().parent / "guest"
FLAGS = (
    "-target x86-freestanding-none -mcpu=i686 -std=gnu11 -O2 -ffreestanding -fno-stack-protector -fno-pic -fno-sanitize=all"
    " -fno-asynchronous-unwind-tables -fno-strict-aliasing -fno-builtin -g0 -Wall -Wextra -Werror"
).split()


@functools.cache
def image() -> bytes:
    """The multiboot kernel, an ELF32 file."""
    with tempfile.TemporaryDirectory(prefix="emu-fuzz-") as name:
        folder = Path(name)
        macros = [f"-D{key}={value:#x}u" for key, value in layout.macros().items()]
        for source in ("fuzz.S", "fuzz.c"):
            options = macros if source.endswith(".c") else []
            _zig(folder, "cc", *FLAGS, *options, "-c", str(SOURCES / source), "-o", f"{source}.o")
        _zig(
            folder,
            "ld.lld",
            "-m",
            "elf_i386",
            "-static",
            "-T",
            str(SOURCES / "fuzz.ld"),
            "fuzz.S.o",
            "fuzz.c.o",
            "-o",
            "fuzz.elf",
        )
        return (folder / "fuzz.elf").read_bytes()


def _zig(folder: Path, *arguments: str) -> None:
    environment = {name: str(folder / name.lower()) for name in ("ZIG_LOCAL_CACHE_DIR", "ZIG_GLOBAL_CACHE_DIR")}
    command = [sys.executable, "-m", "ziglang", *arguments]
    done = subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"`{' '.join(command)}` failed with status {done.returncode}:\n{done.stderr}")
