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
SOURCES = (
    "reset.S", "main.c", "fw_cfg.c", "console.c", "memory.c", "tables.c",
    "bios.S", "bios.c", "bios_data.c", "disk.c", "video.c", "system.c", "serial.c", "time.c",
)  # fmt: skip
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
    "-Wno-unterminated-string-initialization",  # signatures of tables have no NUL
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
    rom.write_bytes(seal(rom.read_bytes()))
    return rom


def seal(rom: bytes) -> bytes:
    """Fill in the checksums of the ACPI and MP tables, which tables.c leaves zero: each makes its table add up to 0."""
    image = bytearray(rom)
    base = (1 << 20) - len(image)

    def word(at: int) -> int:
        return int.from_bytes(image[at : at + 4], "little")

    def close(at: int, length: int, checksum: int) -> None:
        image[at + checksum] = -sum(image[at : at + length]) & 0xFF

    rsdp = _only(image, b"RSD PTR ")
    rsdt = word(rsdp + 16) - base
    tables = [word(at) - base for at in range(rsdt + 36, rsdt + word(rsdt + 4), 4)]
    dsdt = [word(table + 40) - base for table in tables if image[table : table + 4] == b"FACP"]
    for table in (*dsdt, *tables, rsdt):
        close(table, word(table + 4), 9)
    close(rsdp, 20, 8)
    pointer = _only(image, b"_MP_")
    configuration = word(pointer + 4) - base
    close(configuration, word(configuration + 4) & 0xFFFF, 7)
    close(pointer, 16, 10)
    return bytes(image)


def _only(image: bytearray, signature: bytes) -> int:
    """Where the one structure with this signature lies, on 16 bytes as kernels look for it."""
    found = [at for at in range(0, len(image), 16) if image.startswith(signature, at)]
    if len(found) != 1:
        raise ValueError(f"{signature!r} appears {len(found)} times in the ROM, expected once: see tables.c")
    return found[0]


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
    out_dir = Path(sys.argv[1])
    if (out_dir / ROM_NAME).exists():
        print(f"build.py: {out_dir / ROM_NAME}: is there already", file=sys.stderr)
        return 1
    print(build(out_dir))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
