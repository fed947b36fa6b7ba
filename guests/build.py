# SPDX-License-Identifier: GPL-2.0-or-later
"""Build the guest kernels, the same bytes on every machine: multiboot ELF files, and the flat images of the test suite.

The compiler, assembler and linker are those of the `ziglang` package of the running Python, so nothing has to be
installed on the host. Run as `python guests/build.py OUTDIR`, or import and call `build`.
"""

import os
import shutil
import struct
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

SOURCE_DIR = Path(__file__).resolve().parent
LINKER_SCRIPT = "lib/kernel.ld"

OS_DIR = SOURCE_DIR / "os"
OS_LINKER_SCRIPT = "os/kernel/kernel.ld"
PROGRAM_LINKER_SCRIPT = "os/user/lib/program.ld"
OS_SHARED_SOURCES = ("os/balloon.c", "lib/pit.c", "lib/serial.c", "lib/string.c")  # of lib/, what its kernel uses
PROGRAM_SHARED_SOURCES = ("lib/string.c",)  # and its programs
PROGRAM_NAME_BYTES = 60  # in the boot archive, NAME_BYTES of os/include/syscall.h

DISK_ADDRESS = 0x7C00  # where a BIOS loads a boot sector

SUITE_DIR = SOURCE_DIR / "suite"
GOLDEN_FOLDER = "golden"  # in suite/: what cases of suite.toml compare with
SUITE_LINKER_SCRIPT = "suite/lib/suite.ld"
SUITE_SHARED_SOURCES = (
    "lib/cmdline.c",
    "lib/exit.c",
    "lib/ide.c",
    "lib/print.c",
    "lib/serial.c",
    "lib/string.c",
)  # of lib/, what fits 64 bits too

# No SSE, no MMX: guests must not touch floating-point state.
TARGET_32_FLAGS = ("-target", "x86-freestanding-none", "-mcpu=i686")
TARGET_64_FLAGS = (
    "-target",
    "x86_64-freestanding-none",
    "-mcpu=x86_64-mmx-sse-sse2+soft_float",
    "-mno-red-zone",  # interrupts arrive on the stack in use
)
COMPILE_FLAGS = (
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
    "-static",
    "--gc-sections",
    "--build-id=none",
    "--strip-all",
    "-z",
    "nognustack",
)


@dataclass(frozen=True)
class Format:
    """A format of page tables that the suite's guests are built for."""

    target_flags: tuple[str, ...]
    emulation: str  # the linker's word for the object format
    levels: int  # PAGING_LEVELS of suite/lib/arch.h


FORMATS = {
    "32": Format(TARGET_32_FLAGS, "elf_i386", 2),
    "pae": Format(TARGET_32_FLAGS, "elf_i386", 3),
    "64": Format(TARGET_64_FLAGS, "elf_x86_64", 4),
}


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


@dataclass(frozen=True)
class Disk:
    """One boot disk of guests.toml."""

    name: str
    source: str  # relative to SOURCE_DIR
    description: str  # one line, for `emu guests`


def disks() -> list[Disk]:
    """The boot disks in the order of guests.toml."""
    table = tomllib.loads((SOURCE_DIR / "guests.toml").read_text(encoding="utf-8"))
    return [Disk(entry["name"], entry["source"], entry["description"]) for entry in table["disk"]]


@dataclass(frozen=True)
class SuiteGuest:
    """One line of suite/guests.toml: a theme of tests, built once for each format."""

    name: str
    formats: tuple[str, ...]  # keys of FORMATS
    address: int = 0  # of one that is NAME.S alone, linked to run there; 0: with the suite's library, at 1 MiB

    @property
    def sources(self) -> list[str]:
        """NAME.c, and NAME.S where there is one; relative to SOURCE_DIR."""
        files = (SUITE_DIR / f"{self.name}{suffix}" for suffix in (".c", ".S"))
        return [path.relative_to(SOURCE_DIR).as_posix() for path in files if path.exists()]


def suite_guests() -> list[SuiteGuest]:
    """The suite's guests in the order of suite/guests.toml."""
    table = tomllib.loads((SUITE_DIR / "guests.toml").read_text(encoding="utf-8"))
    return [SuiteGuest(entry["name"], tuple(entry["formats"]), entry.get("address", 0)) for entry in table["guest"]]


def build(out_dir: Path) -> list[Path]:
    """Compile every guest into `out_dir` and return the files, in the order of guests.toml.

    Raises BuildError when the compiler or linker is missing or refuses a source.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="emu-guests-") as scratch:
        toolchain = _Toolchain(Path(scratch), Path(scratch) / "objects", TARGET_32_FLAGS, "elf_i386")
        library = _sources_in("lib")
        own = {source for guest in guests() for source in guest.sources}
        toolchain.compile_all([*library, *sorted(own)])
        return [toolchain.link([*guest.sources, *library], out_dir / f"{guest.name}.elf") for guest in guests()]


SUITE_DISK = "os.img"  # with a file system and swap, for the operating system's tests
SUITE_DISK_FILES, SUITE_DISK_SWAP = 4 << 20, 4 << 20  # bytes


def build_suite(out_dir: Path) -> list[Path]:
    """Build the suite's guests into `out_dir`, beside copies of suite.toml and its golden files, and return the images.

    Images are called NAME-FORMAT.bin. Raises BuildError as `build` does.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    shutil.copy(SUITE_DIR / "suite.toml", out_dir)
    shutil.copytree(SUITE_DIR / GOLDEN_FOLDER, out_dir / GOLDEN_FOLDER, dirs_exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="emu-suite-") as scratch:
        return [image for name in FORMATS for image in _build_format(name, Path(scratch), out_dir)]


def _build_format(name: str, scratch: Path, out_dir: Path) -> list[Path]:
    paging = FORMATS[name]
    define = f"-DPAGING_LEVELS={paging.levels}"
    toolchain = _Toolchain(scratch, scratch / name, (*paging.target_flags, define), paging.emulation)
    library = [*SUITE_SHARED_SOURCES, *_sources_in("suite/lib")]
    built = [guest for guest in suite_guests() if name in guest.formats]
    with_library = [guest for guest in built if not guest.address]
    toolchain.compile_all([*library, *(source for guest in with_library for source in guest.sources)])
    images = [toolchain.link_flat([*guest.sources, *library], out_dir / f"{guest.name}-{name}.bin") for guest in with_library]
    alone = [guest for guest in built if guest.address]
    return images + [toolchain.link_at(guest.sources[0], guest.address, out_dir / f"{guest.name}-{name}.bin") for guest in alone]


@dataclass(frozen=True)
class System:
    """A build of the operating system in os/."""

    name: str
    format: str  # a key of FORMATS
    kernel_base: int  # KERNEL_BASE of os/kernel/arch.h
    flags: tuple[str, ...]  # for the kernel's sources
    description: str  # one line, for `emu guests`


SYSTEMS = (
    System("os-i386", "32", 0xC000_0000, (), "is a small operating system with 32-bit paging"),
    System("os-pae", "pae", 0xC000_0000, (), "is the same with PAE paging"),
    System("os-x86_64", "64", 0xFFFF_FFFF_8000_0000, ("-mcmodel=kernel",), "is the same in long mode"),
)


def build_systems(out_dir: Path) -> list[Path]:
    """Build the operating system in its three forms, with its programs, and return the images; raises BuildError."""
    out_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="emu-os-") as scratch:
        return [_build_system(system, Path(scratch), out_dir) for system in SYSTEMS]


def _build_system(system: System, scratch: Path, out_dir: Path) -> Path:
    paging = FORMATS[system.format]
    define = f"-DPAGING_LEVELS={paging.levels}"
    programs = _Toolchain(scratch, scratch / system.name / "user", (*paging.target_flags, define), paging.emulation)
    kernel = _Toolchain(
        scratch, scratch / system.name / "kernel", (*paging.target_flags, define, *system.flags), paging.emulation
    )
    kernel_sources = [*OS_SHARED_SOURCES, *_sources_in("os/kernel")]
    kernel.compile_all(kernel_sources)
    kernel.add_binary(_archive(_build_programs(programs)), ".archive", "archive")
    linked = out_dir / f"{system.name}.bin"
    return kernel.link_os([*kernel_sources, "archive"], linked, system.kernel_base)


def _build_programs(toolchain: "_Toolchain") -> dict[str, bytes]:
    """The ELF file of each program in os/user, by name."""
    library = [*PROGRAM_SHARED_SOURCES, *_sources_in("os/user/lib")]
    sources = _sources_in("os/user")
    toolchain.compile_all([*library, *sources])
    programs = {}
    for source in sources:
        linked = toolchain.objects / f"{Path(source).stem}.elf"
        programs[Path(source).stem] = toolchain.link_program([source, *library], linked).read_bytes()
    return programs


def _archive(programs: dict[str, bytes]) -> bytes:
    """The boot archive, as os/kernel/bootfs.c reads it: count, then name, offset and size of each, then contents by the page."""
    page = 4096
    at = -(-(4 + len(programs) * (PROGRAM_NAME_BYTES + 8)) // page) * page
    table, contents = struct.pack("<I", len(programs)), b""
    for name, program in programs.items():
        table += struct.pack(f"<{PROGRAM_NAME_BYTES}sII", name.encode(), at + len(contents), len(program))
        contents += program.ljust(-(-len(program) // page) * page, b"\0")
    return table.ljust(at, b"\0") + contents


def build_disks(out_dir: Path) -> list[Path]:
    """Make the boot disks of guests.toml in `out_dir` and return the files; raises BuildError."""
    with tempfile.TemporaryDirectory(prefix="emu-disks-") as scratch:
        toolchain = _Toolchain(Path(scratch), Path(scratch) / "objects", TARGET_32_FLAGS, "elf_i386")
        return [toolchain.link_at(disk.source, DISK_ADDRESS, out_dir / f"{disk.name}.img") for disk in disks()]


def _sources_in(folder: str) -> list[str]:
    files = (path for path in (SOURCE_DIR / folder).iterdir() if path.suffix in {".c", ".S"})
    return sorted(path.relative_to(SOURCE_DIR).as_posix() for path in files)


class _Toolchain:
    """zig in a folder of its own: its caches too stay out of the user's home."""

    def __init__(self, scratch: Path, objects: Path, target_flags: tuple[str, ...], emulation: str) -> None:
        self.objects = objects
        self.compile_flags = (*target_flags, *COMPILE_FLAGS)
        self.link_flags = ("-m", emulation, *LINK_FLAGS)
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
        self._zig("cc", *self.compile_flags, "-c", source, "-o", str(self.objects / object_name(source)))

    def link(self, sources: list[str], out: Path) -> Path:
        """Object names are relative, since kernel.ld tells ring 3 programs by them."""
        return self._link(sources, LINKER_SCRIPT, out)

    def link_flat(self, sources: list[str], out: Path) -> Path:
        """A file of the bytes in memory: loaders refuse 64-bit ELF files, but heed a multiboot header's addresses."""
        return self._link(sources, SUITE_LINKER_SCRIPT, out, "--oformat", "binary")

    def _link(self, sources: list[str], script: str, out: Path, *flags: str) -> Path:
        objects = [object_name(source) for source in sources]
        arguments = (*self.link_flags, *flags, "-T", str(SOURCE_DIR / script), *objects, "-o", str(out.resolve()))
        self._zig("ld.lld", *arguments, cwd=self.objects)
        return out

    def link_os(self, sources: list[str], out: Path, kernel_base: int) -> Path:
        """A flat image that runs at its load address plus `kernel_base`."""
        linked = self._link(sources, OS_LINKER_SCRIPT, self.objects / "kernel.elf", f"--defsym=kernel_base={kernel_base:#x}")
        self._zig("objcopy", "-O", "binary", str(linked), str(out.resolve()))
        return out

    def link_program(self, sources: list[str], out: Path) -> Path:
        """An ELF file for the operating system to load, with the page as its unit."""
        return self._link(sources, PROGRAM_LINKER_SCRIPT, out, "-z", "max-page-size=4096")

    def add_binary(self, contents: bytes, section: str, name: str) -> None:
        """An object with these bytes in a section of their own."""
        (self.objects / f"{name}.bin").write_bytes(contents)
        (self.objects / f"{name}.S").write_text(f'.section {section}, "a"\n.incbin "{name}.bin"\n', encoding="utf-8")
        self._zig("cc", *self.compile_flags, "-c", f"{name}.S", "-o", object_name(name), cwd=self.objects)

    def link_at(self, source: str, address: int, out: Path) -> Path:
        """A flat image that runs at an address below 1 MiB, from a source alone."""
        self.compile(source)
        flags = ["-m", "elf_i386", "--image-base=0", f"-Ttext={address:#x}", "--oformat", "binary"]
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
        out_dir = Path(sys.argv[1])
        if out_dir.exists() and any(out_dir.iterdir()):
            print(f"build.py: {out_dir}: is not empty; files of the same names would be lost", file=sys.stderr)
            return 1
        for path in [*build(out_dir), *build_systems(out_dir), *build_suite(out_dir / "suite")]:
            print(path)
    except BuildError as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
