# SPDX-License-Identifier: GPL-2.0-or-later
"""Boot disks: BIOS services as a boot sector sees them under emu, with QEMU's SeaBIOS beside it; ACPI and MP tables."""

from __future__ import annotations

import functools
import shutil
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from emu import images
from emu.config import Mmu, VmConfig
from emu.errors import BadImageError
from emu.events import Outcome
from emu.machine.memory import MachineMemory
from emu.units import PAGE_BYTES
from emu.vm import loader
from emu.vm.exits import Stop
from emu.vm.state import frames_needed
from emu.vm.vm import VirtualMachine

HERE = Path(__file__).resolve().parent
QEMU = shutil.which("qemu-system-i386")
ZIG = [sys.executable, "-m", "ziglang"]
SECTOR = 512
DISK_SECTORS = 4 * 16 * 63  # four cylinders of SeaBIOS's geometry
FLOPPY_SECTORS = 2880
INSN_LIMIT = 50_000_000
RUN_LIMIT_S = 30
EXIT = 0x10
both_mmus = pytest.mark.parametrize("mmu", list(Mmu))


@dataclass
class Keys:
    """A console that sends `keys` once."""

    keys: bytes = b""
    output: bytearray = field(default_factory=bytearray)

    def write(self, data: bytes) -> None:
        self.output += data

    def write_debug(self, data: bytes) -> None:
        del data

    def poll(self) -> bytes:
        keys, self.keys = self.keys, b""
        return keys

    def idle(self, seconds: float | None) -> bool:
        del seconds
        return False


@functools.cache
def sector(calls: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="emu-test-") as name:
        folder = Path(name)
        (folder / "calls.inc").write_text(calls + "\n")
        for command in (
            ["cc", "-target", "x86-freestanding-none", f"-I{folder}", "-c", HERE / "boot_sector.S", "-o", folder / "a.o"],
            ["ld.lld", "-m", "elf_i386", "--image-base=0", "-Ttext=0x7c00", "--oformat", "binary", folder / "a.o"]
            + ["-o", folder / "a.img"],
        ):
            done = subprocess.run([*ZIG, *map(str, command)], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        return (folder / "a.img").read_bytes()


def disk(calls: str, sectors: int = DISK_SECTORS) -> bytes:
    """An image whose later sectors begin with their number."""
    return sector(calls) + b"".join(struct.pack("<I", number).ljust(SECTOR, b".") for number in range(1, sectors))


def run(image: bytes, mmu: Mmu, keys: bytes = b"") -> tuple[Stop, str, VirtualMachine]:
    rom = images.firmware()
    config = VmConfig(mmu=mmu)
    console = Keys(keys)
    memory = MachineMemory(frames_needed(config, len(rom)) * PAGE_BYTES)
    vm = VirtualMachine(memory, config, rom=rom, firmware_files={"opt/emu/boot-disk": image}, console=console)
    return vm.run(limit=INSN_LIMIT), console.output.decode("latin-1"), vm


def lines(image: bytes, mmu: Mmu, keys: bytes = b"") -> list[str]:
    stop, output, _ = run(image, mmu, keys)
    assert (stop.outcome, stop.value) == (Outcome.EXITED, EXIT), output
    return output.splitlines()


def seabios(image: bytes, folder: Path, floppy: bool = False) -> list[str]:
    path = folder / "disk.img"
    path.write_bytes(image)
    assert QEMU is not None
    drive = f"file={path},format=raw,if={'floppy' if floppy else 'ide'}"
    command = [QEMU, "-nodefaults", "-accel", "tcg", "-display", "none", "-serial", "stdio", "-no-reboot", "-m", "32"]
    command += ["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-drive", drive, "-boot", "a" if floppy else "c"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT_S, check=False)
    assert done.returncode == EXIT << 1 | 1, done.stderr
    return done.stdout.splitlines()


def call(vector: int, ax: int, bx: int = 0, cx: int = 0, dx: int = 0) -> str:
    registers = {"ax": ax, "bx": bx, "cx": cx, "dx": dx}
    moves = "\n".join(f"movw ${value}, %{name}" for name, value in registers.items())
    return f"{moves}\nclc\nint ${vector}\nREPORT\n"


def extended(ah: int, count: int, first: int, high: int = 0) -> str:
    """A call with a packet at 0600."""
    words = struct.unpack("<8H", struct.pack("<BBHHHII", 16, 0, count, 0x9000, 0, first, high))
    stores = "\n".join(f"movw ${word}, {0x600 + 2 * at}" for at, word in enumerate(words))
    return f"{stores}\nmovw $0x600, %si\n" + call(0x13, ah << 8, dx=0x80)


SHOW_READ = "movw 0x9000, %ax\nmovw 0x9200, %bx\nxorw %cx, %cx\nxorw %dx, %dx\nREPORT\n"

# What is the same on every BIOS. Not here: memory maps, and AH=08h, where SeaBIOS hides the last cylinder.
SAME_AS_SEABIOS = {
    "reset": call(0x13, 0, dx=0x80),
    "read": call(0x13, 0x0202, 0x9000, 0x0002, 0x0080) + SHOW_READ,
    "read cylinder 2 head 3": call(0x13, 0x0202, 0x9000, 0x0205, 0x0380) + SHOW_READ,
    "extensions": extended(0x42, 2, 1000) + SHOW_READ + "movw 0x602, %ax\nREPORT\n",
    "equipped memory": "int $0x12\nREPORT\n",
}


@pytest.mark.skipif(QEMU is None, reason="qemu-system-i386 is not installed")
@both_mmus
@pytest.mark.parametrize("calls", SAME_AS_SEABIOS.values(), ids=SAME_AS_SEABIOS)
def test_results_are_those_of_seabios(calls: str, mmu: Mmu, tmp_path: Path) -> None:
    image = disk(calls)
    expected = [line for line in seabios(image, tmp_path) if len(line.split()) == 5]
    assert lines(image, mmu) == expected
    assert expected


@both_mmus
@pytest.mark.parametrize(
    ("calls", "result"),
    [
        pytest.param(call(0x13, 0x0201, 0x9000, 0x0440, 0x0080), "0001 0100", id="sector 0"),
        pytest.param(call(0x13, 0x0201, 0x9000, 0x0001, 0x1080), "0001 0100", id="head beyond"),
        pytest.param(call(0x13, 0x0201, 0x9000, 0x0401, 0x0080), "0001 0100", id="cylinder beyond"),
        pytest.param(call(0x13, 0x0202, 0x9000, 0x033F, 0x0F80), "0001 0400", id="runs over the end"),
        pytest.param(call(0x13, 0x0201, 0x9000, 0x0001, 0x0081), "0001 0100", id="no such drive"),
        pytest.param(call(0x13, 0x0301, 0x9000, 0x0001, 0x0080), "0001 0300", id="write"),
        pytest.param(extended(0x42, 1, DISK_SECTORS - 1), "0000 0000", id="last sector"),
        pytest.param(extended(0x42, 2, DISK_SECTORS - 1), "0001 0100", id="extended read over the end"),
        pytest.param(extended(0x42, 1, 0, 1), "0001 0100", id="beyond 2 TiB"),
        pytest.param(extended(0x43, 1, 0), "0001 0300", id="extended write"),
        pytest.param(call(0x13, 0x4100, 0x55AA, 0, 0x80), "0000 2100 aa55 0001 0080", id="extensions"),
        pytest.param(call(0x13, 0x0800, dx=0x80), "0000 0000 0000 033f 0f01", id="geometry"),
        pytest.param(call(0x13, 0x1500, dx=0x80), "0000 0300 0000 0000 0fc0", id="kind"),
        pytest.param("int $0x11\nREPORT\n", "0000", id="equipment"),
        pytest.param(call(0x15, 0xE801), "0000 3c00 0100 3c00 0100", id="e801"),
        pytest.param(call(0x15, 0x8800), "0000 7c00", id="88"),
        pytest.param(call(0x15, 0x9999), "0001 8699", id="unsupported"),
        pytest.param(call(0x15, 0x4F1E), "0001 4f1e", id="4f"),
        pytest.param(call(0x15, 0x2401), "0000 0001", id="A20 on"),
        pytest.param(call(0x15, 0x2402), "0000 0001", id="A20 state"),
        pytest.param(call(0x1A, 0x0400), "0000 0000 0000 2002 1209", id="date"),
        pytest.param(call(0x1A, 0x0200), "0000 0000 0000 0000 0000", id="time"),
        pytest.param(
            call(0x10, 0x0200, 0, 0, 0x0507) + "movb $3, %ah\nint $0x10\nREPORT\n", "0000 0200 0000 0000 0507", id="cursor"
        ),
        pytest.param(call(0x10, 0x0F00), "0000 5003", id="video mode"),
        pytest.param(call(0x14, 0x0300), "0000 60b0", id="serial status"),
        pytest.param(call(0x16, 0x0100), "0000 0100", id="no key"),
    ],
)
def test_service(calls: str, result: str, mmu: Mmu) -> None:
    output = lines(disk(calls), mmu)
    assert output[0].startswith(result), output


@both_mmus
def test_keys_come_from_com1(mmu: Mmu) -> None:
    assert lines(disk(call(0x16, 0) * 2), mmu, b"a\n") == ["0000 1e61 0000 0000 0000 ", "0000 1c0d 0000 0000 0000 "]


@both_mmus
def test_ticks_count_while_the_program_sleeps(mmu: Mmu) -> None:
    wait = "sti\nhlt\nhlt\n"
    first, second = lines(disk(call(0x1A, 0) + wait + call(0x1A, 0)), mmu)
    assert int(second.split()[4], 16) == int(first.split()[4], 16) + 2


@both_mmus
def test_a_floppy_image_is_drive_0(mmu: Mmu) -> None:
    output = lines(disk("xorb %dh, %dh\nREPORT\n" + call(0x13, 0x0800), FLOPPY_SECTORS), mmu)
    assert output[0].split()[4] == "0000"
    assert output[1] == "0000 0000 0004 4f12 0101 "


@both_mmus
def test_unreal_mode_and_the_gdt_survive_a_call(mmu: Mmu) -> None:
    calls = (
        "cli\nlgdtl table\nmovl %cr0, %eax\norb $1, %al\nmovl %eax, %cr0\nmovw $8, %bx\nmovw %bx, %fs\n"
        "andb $0xfe, %al\nmovl %eax, %cr0\nsti\nint $0x12\nmovl $0x200000, %edi\nmovb $0x5a, %fs:(%edi)\n"
        "movb %fs:(%edi), %bl\nxorb %bh, %bh\nsgdtl 0x600\nmovw 0x600, %cx\nxorw %dx, %dx\nREPORT\njmp done\n"
        "table: .word 15\n.long gdt\ngdt: .quad 0, 0x00cf93000000ffff\ndone:\n"
    )
    assert lines(disk(calls), mmu) == ["0000 027f 005a 000f 0000 "]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (bytes(1024), "emu firmware: the boot disk's first sector does not end with 55 AA: it is not bootable"),
        (sector("int $0x18"), "emu firmware: the boot sector gave up (INT 18h), and there is no other disk"),
        (sector("xorw %cx, %cx\nxorw %dx, %dx\ndivw %cx"), "emu firmware: exception 00 at 0000:7c05 has no handler"),
    ],
    ids=["no signature", "int 18", "divide by zero"],
)
def test_the_firmware_says_why_it_stops(image: bytes, message: str) -> None:
    stop, output, _ = run(image, Mmu.SHADOW)
    assert (stop.outcome, output) == (Outcome.HALTED, message + "\n")


def test_wrong_image_files(tmp_path: Path) -> None:
    empty, short, huge = tmp_path / "empty", tmp_path / "short", tmp_path / "huge"
    empty.touch()
    short.write_bytes(b"x" * 511)
    with huge.open("wb") as file:
        file.truncate(1 << 32)
    for path, reason in (
        (tmp_path / "absent", "no such file"),
        (tmp_path, "is a directory"),
        (Path("/dev/null"), "not a regular file"),
        (empty, "the boot disk is empty"),
        (short, "a boot disk of 511 bytes"),
        (huge, "does not fit"),
    ):
        with pytest.raises(BadImageError, match=reason):
            loader.load_disk(path)


def test_a_disk_image_reads_lazily_and_pads_a_file_that_shrinks(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"ab" * SECTOR)
    image = loader.load_disk(path)["opt/emu/boot-disk"]
    path.write_bytes(b"xyz")
    assert (len(image), image[1:5], image[1]) == (2 * SECTOR, b"yz\0\0", ord("y"))


# ---- tables ----


@pytest.fixture(scope="module")
def rom_area() -> bytes:
    """E0000-FFFFF as a guest sees it."""
    _, _, vm = run(sector(""), Mmu.SHADOW)
    return b"\xff" * 0x1_0000 + vm.read_physical(0xF_0000, 0x1_0000)


def find(area: bytes, signature: bytes) -> int:
    (at,) = [at for at in range(0, len(area), 16) if area[at:].startswith(signature)]
    return at


def table(area: bytes, address: int) -> bytes:
    at = address - 0xE_0000
    data = area[at : at + struct.unpack_from("<I", area, at + 4)[0]]
    assert sum(data) & 0xFF == 0, data[:4]
    return data


def test_acpi_tables(rom_area: bytes) -> None:
    at = find(rom_area, b"RSD PTR ")
    rsdp = rom_area[at : at + 20]
    assert (sum(rsdp) & 0xFF, rsdp[15]) == (0, 0)
    rsdt = table(rom_area, struct.unpack_from("<I", rsdp, 16)[0])
    tables = {data[:4]: data for data in (table(rom_area, word) for (word,) in struct.iter_unpack("<I", rsdt[36:]))}
    assert set(tables) == {b"FACP", b"APIC"}
    assert table(rom_area, struct.unpack_from("<I", tables[b"FACP"], 40)[0])[:4] == b"DSDT"
    madt = tables[b"APIC"]
    assert struct.unpack_from("<II", madt, 36) == (0xFEE0_0000, 1)
    assert madt[44:] == (
        struct.pack("<BBBBI", 0, 8, 0, 0, 1)
        + struct.pack("<BBBBII", 1, 12, 1, 0, 0xFEC0_0000, 0)
        + struct.pack("<BBBBIH", 2, 10, 0, 0, 2, 0)
        + struct.pack("<BBBHB", 4, 6, 0xFF, 0, 1)
    )


def test_mp_tables(rom_area: bytes) -> None:
    at = find(rom_area, b"_MP_")
    pointer = rom_area[at : at + 16]
    assert (sum(pointer) & 0xFF, pointer[8], pointer[9]) == (0, 1, 4)
    at = struct.unpack_from("<I", pointer, 4)[0] - 0xE_0000
    size, revision = struct.unpack_from("<HB", rom_area, at + 4)
    data = rom_area[at : at + size]
    assert (data[:4], sum(data) & 0xFF, revision) == (b"PCMP", 0, 4)
    (count,) = struct.unpack_from("<H", data, 34)
    assert struct.unpack_from("<I", data, 36) == (0xFEE0_0000,)
    entries, at = [], 44
    for _ in range(count):
        entries.append(data[at : at + (20 if data[at] == 0 else 8)])
        at += len(entries[-1])
    assert at == size
    inputs = {entry[5]: entry[7] for entry in entries if entry[0] == 3}
    assert inputs == {0: 2} | {irq: irq for irq in range(1, 16) if irq != 2}
    assert [(entry[1], entry[7]) for entry in entries if entry[0] == 4] == [(3, 0), (1, 1)]
    assert struct.pack("<BBBBI", 2, 1, 0x11, 1, 0xFEC0_0000) in entries
