# SPDX-License-Identifier: GPL-2.0-or-later
"""Build the boot ROM: a flat image of 64 KiB, the same bytes on every machine.

The compiler, assembler and linker are those of the `ziglang` package of the running Python, so nothing has to be
installed on the host. Run as `python firmware/build.py OUTDIR`, or import and call `build`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE_DIR = Path(__file__).resolve().parent
SOURCES = ("reset.S", "main.c", "fw_cfg.c")
LINKER_SCRIPT = "firmware.ld"
ROM_NAME = "firmware.rom"
ROM_BYTES = 0x10000  # ROM_BYTES of layout.h: F0000-FFFFF

COMPILE_FLAGS = (
    "-target", "x86-freestanding-none",
    "-mcpu=i686",  # no SSE: the processor comes out of reset with it off
    "-std=c11",
    "-Os",
    "-ffreestanding",
    "-fno-builtin",  # there is no C library to call memset or memcpy from
    "-fno-pic",
    "-fno-stack-protector",
    "-fno-sanitize=all",  # zig turns the undefined-behaviour sanitizer on by itself
    "-fno-asynchronous-unwind-tables",
    "-fomit-frame-pointer",
    "-g0",
    "-Wall", "-Wextra", "-Werror",
)  # fmt: skip


def build(out_dir: Path) -> Path:
    """Make `firmware.rom` in `out_dir` and return it.

    Raises subprocess.CalledProcessError with the compiler's words in `stderr`.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    rom = out_dir / ROM_NAME
    with tempfile.TemporaryDirectory(prefix="emu-firmware-") as scratch:
        objects = [_compile(source, Path(scratch)) for source in SOURCES]
        script = Path(scratch) / LINKER_SCRIPT
        _zig(Path(scratch), "cc", "-E", "-P", "-x", "c", LINKER_SCRIPT, "-o", str(script))
        _zig(Path(scratch), "ld.lld", "-T", str(script), "--oformat", "binary", *objects, "-o", str(rom.resolve()))
    _check_size(rom)
    return rom


def _compile(source: str, scratch: Path) -> str:
    # A relative source path keeps the machine's folders out of the object.
    target = str(scratch / f"{source}.o")
    _zig(scratch, "cc", *COMPILE_FLAGS, "-c", source, "-o", target)
    return target


def _zig(scratch: Path, *arguments: str) -> None:
    """Run zig in the source folder, with its caches out of the user's home."""
    environment = {
        **os.environ,
        "ZIG_LOCAL_CACHE_DIR": str(scratch / "local-cache"),
        "ZIG_GLOBAL_CACHE_DIR": str(scratch / "global-cache"),
    }
    command = [sys.executable, "-m", "ziglang", *arguments]
    try:
        subprocess.run(command, cwd=SOURCE_DIR, env=environment, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        sys.stderr.write(error.stderr)
        raise


def _check_size(rom: Path) -> None:
    size = rom.stat().st_size
    if size != ROM_BYTES:
        raise ValueError(f"{rom.name}: {size} bytes, expected {ROM_BYTES}: see the sections of {LINKER_SCRIPT}")


def main() -> int:
    """Build into the folder named on the command line."""
    if len(sys.argv) != 2:
        print("usage: python firmware/build.py OUTDIR", file=sys.stderr)
        return 2
    print(build(Path(sys.argv[1])))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
