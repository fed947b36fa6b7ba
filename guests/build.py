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
    "-target",
    "x86-freestanding-none",
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
    "-Wall",
    "-Wextra",
    "-Werror",
)
LINK_FLAGS = (
    "-m",
    "elf_i386",
    "-static",
    "--gc-sections",
    "--build-id=none",
    "--strip-all",
    "-z",
    "nognustack",
)


class BuildError(Exception):
    """A source that does not compile or link, or no ziglang; the message has the tool's own words."""


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

    Raises BuildError when the compiler or linker is missing or refuses a source.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="emu-guests-") as scratch:
        toolchain = _Toolchain(Path(scratch))
        library = _library_sources()
        own = {source for guest in guests() for source in guest.sources}
        toolchain.compile_all([*library, *sorted(own)])
        return [toolchain.link(guest, library, out_dir / f"{guest.name}.elf") for guest in guests()]


def build_disks(out_dir: Path) -> list[Path]:
    """Make the boot disks of guests.toml in `out_dir` and return the files; raises BuildError."""
    table = tomllib.loads((SOURCE_DIR / "guests.toml").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="emu-disks-") as scratch:
        toolchain = _Toolchain(Path(scratch))
        return [toolchain.link_disk(disk["source"], out_dir / f"{disk['name']}.img") for disk in table["disk"]]


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
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(self.compile, sources))

    def compile(self, source: str) -> None:
        """Relative paths keep the machine's folders out of the object."""
        (self.objects / object_name(source)).parent.mkdir(parents=True, exist_ok=True)
        self._zig("cc", *COMPILE_FLAGS, "-c", source, "-o", str(self.objects / object_name(source)))

    def link(self, guest: Guest, library: list[str], out: Path) -> Path:
        """Object names are relative, since kernel.ld tells ring 3 programs by them."""
        objects = [object_name(source) for source in [*guest.sources, *library]]
        script = str(SOURCE_DIR / LINKER_SCRIPT)
        self._zig("ld.lld", *LINK_FLAGS, "-T", script, *objects, "-o", str(out.resolve()), cwd=self.objects)
        return out

    def link_disk(self, source: str, out: Path) -> Path:
        """A flat image that runs at 7C00, where a BIOS loads it."""
        self.compile(source)
        flags = ["-m", "elf_i386", "--image-base=0", "-Ttext=0x7c00", "--oformat", "binary"]
        self._zig("ld.lld", *flags, object_name(source), "-o", str(out.resolve()), cwd=self.objects)
        return out

    def _zig(self, *arguments: str, cwd: Path = SOURCE_DIR) -> None:
        command = [sys.executable, "-m", "ziglang", *arguments]
        done = subprocess.run(command, cwd=cwd, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BuildError(f"`{' '.join(command)}` failed with status {done.returncode}:\n{done.stderr}")


def object_name(source: str) -> str:
    """Unlike the stem, unique: there are paging.c and lib/paging.c, probe.c and probe.S."""
    return f"{source}.o"


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python guests/build.py OUTDIR", file=sys.stderr)
        return 2
    try:
        for path in build(Path(sys.argv[1])):
            print(path)
    except BuildError as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
