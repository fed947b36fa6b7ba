# SPDX-License-Identifier: GPL-2.0-or-later
"""Build the guest kernels: multiboot ELF files, the same bytes on every machine.

The compiler, assembler and linker are those of the `ziglang` package of the running Python, so nothing has to be
installed on the host. Run as `python guests/build.py OUTDIR`, or import and call `build`.
"""

import os
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

SOURCE_DIR = Path(__file__).resolve().parent
LINKER_SCRIPT = "lib/kernel.ld"

COMPILE_FLAGS = (
    "-target", "x86-freestanding-none",
    "-mcpu=i686",  # no SSE, no MMX: guests must not touch floating-point state
    "-std=c11",
    "-O2",
    "-ffreestanding",
    "-fno-stack-protector",
    "-fno-pic",
    "-fno-sanitize=all",  # zig turns the undefined-behaviour sanitizer on by itself
    "-fno-asynchronous-unwind-tables",
    "-fomit-frame-pointer",
    "-fno-strict-aliasing",  # page tables and loader structures are read through casts
    "-ffunction-sections",
    "-fdata-sections",
    "-fdebug-compilation-dir=.",
    "-g0",
    "-Wall", "-Wextra", "-Werror",
)
LINK_FLAGS = (
    "-m", "elf_i386",
    "-static",
    "--gc-sections",
    "--build-id=none",
    "--strip-all",
    "-z", "nognustack",
)


@dataclass(frozen=True)
class Guest:
    """One line of guests.toml."""

    name: str
    sources: tuple[str, ...]  # relative to SOURCE_DIR
    description: str  # one line, for `emu guests`


def guests() -> list[Guest]:
    """The guests in the order of guests.toml."""
    table = tomllib.loads((SOURCE_DIR / "guests.toml").read_text(encoding="utf-8"))
    return [Guest(entry["name"], tuple(entry["sources"]), entry["description"]) for entry in table["guest"]]


def build(out_dir: Path) -> list[Path]:
    """Compile every guest into `out_dir` and return the files, in the order of guests.toml.

    Raises subprocess.CalledProcessError with the compiler's words in `stderr`.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="emu-guests-") as scratch:
        toolchain = _Toolchain(Path(scratch))
        library = _library_sources()
        own = {source for guest in guests() for source in guest.sources}
        toolchain.compile_all([*library, *sorted(own)])
        return [toolchain.link(guest, library, out_dir / f"{guest.name}.elf") for guest in guests()]


def _library_sources() -> list[str]:
    files = (path for path in (SOURCE_DIR / "lib").iterdir() if path.suffix in {".c", ".S"})
    return sorted(path.relative_to(SOURCE_DIR).as_posix() for path in files)


class _Toolchain:
    """zig in a folder of its own: its caches too stay out of the user's home."""

    def __init__(self, scratch: Path) -> None:
        self.objects = scratch / "objects"
        self.environment = {
            **os.environ,
            "ZIG_LOCAL_CACHE_DIR": str(scratch / "local-cache"),
            "ZIG_GLOBAL_CACHE_DIR": str(scratch / "global-cache"),
        }

    def compile_all(self, sources: list[str]) -> None:
        self.objects.mkdir()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(self.compile, sources))

    def compile(self, source: str) -> None:
        # A relative source path keeps the machine's folders out of __FILE__ and the symbol table.
        self._zig("cc", *COMPILE_FLAGS, "-c", source, "-o", str(self.object_of(source)))

    def link(self, guest: Guest, library: list[str], out: Path) -> Path:
        objects = [str(self.object_of(source)) for source in [*guest.sources, *library]]
        self._zig("ld.lld", *LINK_FLAGS, "-T", LINKER_SCRIPT, *objects, "-o", str(out.resolve()))
        return out

    def object_of(self, source: str) -> Path:
        """Sources of one base name, as probe.c and probe.S, get objects of different names.

        kernel.ld knows ring 3 programs by the end of their object's name, *_user.o.
        """
        path = Path(source)
        assembly = "-asm" if path.suffix == ".S" else ""
        return self.objects / f"{path.stem}{assembly}.o"

    def _zig(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "ziglang", *arguments]
        try:
            subprocess.run(
                command, cwd=SOURCE_DIR, env=self.environment, check=True, capture_output=True, text=True
            )
        except subprocess.CalledProcessError as error:
            sys.stderr.write(error.stderr)
            raise


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python guests/build.py OUTDIR", file=sys.stderr)
        return 2
    for path in build(Path(sys.argv[1])):
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
