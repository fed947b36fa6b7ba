# SPDX-License-Identifier: GPL-2.0-or-later
"""However a run ends, its trace and its summary are there, and the last line says what happened."""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_boot import LIMIT_S, ROOT, emu, flat_kernel
from tests.suite.kernels import ABORTS

LOAD = 0x10_0000

# What goes wrong, as a statement put before `emu` runs, and the last line and status that it must end with.
INJECTED = {
    "broken invariant": (
        (
            "from emu.errors import BrokenInvariantError\n"
            "from emu.machine import vmcb\nfrom emu.vm import exits\n"
            "def fail(context): raise BrokenInvariantError('a test says so')\n"
            "exits.EXITS[vmcb.EXIT_CPUID] = fail"
        ),
        "emu: a test says so",
        70,
    ),
    "engine": (
        (
            "from emu.machine import engine\n"
            "real, calls = engine.uclib.uc_emu_start, []\n"
            "class Library:\n"
            "    def __getattr__(self, name): return getattr(lib, name)\n"
            "    def uc_emu_start(self, *arguments):\n"
            "        calls.append(1)\n"
            "        return real(*arguments) if len(calls) < 4 else 10\n"
            "lib, engine.uclib = engine.uclib, Library()"
        ),
        "emu: the engine stopped with error 10 at ",
        70,
    ),
    "machine memory": (
        (
            "from emu.errors import MachineMemoryError\n"
            "from emu.machine import vmcb\nfrom emu.vm import exits\n"
            "def fail(context): raise MachineMemoryError('no frame left')\n"
            "exits.EXITS[vmcb.EXIT_CPUID] = fail"
        ),
        "emu: no frame left",
        72,
    ),
    "host memory": (
        "from emu.machine import vmcb\nfrom emu.vm import exits\ndef fail(context): raise MemoryError\nexits.EXITS[vmcb.EXIT_CPUID] = fail",
        "emu: the host gives no more memory",
        72,
    ),
    "exception in a device": (
        "from emu.devices.system import SystemPorts\ndef fail(self, port, size, value): raise ZeroDivisionError('in a device')\nSystemPorts.write = fail",
        "emu: a bug of emu: ZeroDivisionError: in a device at ",
        70,
    ),
    "interrupt in Python": (
        "from emu.machine import vmcb\nfrom emu.vm import exits\ndef fail(context): raise KeyboardInterrupt\nexits.EXITS[vmcb.EXIT_CPUID] = fail",
        "emu: interrupted",
        130,
    ),
}
# cpuid; out 80, al; 0 to port F4
GUEST = b"\x31\xc0\x0f\xa2\xe6\x80" + b"\xb0\x00\xe6\xf4\xeb\xfe"


def emu_with(statements: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command with a fault put into it."""
    program = f"{statements}\nfrom emu.cli import run\nrun()"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=ROOT, timeout=LIMIT_S, check=False
    )


@pytest.mark.parametrize("case", INJECTED)
def test_an_error_of_emu_loses_nothing(case: str, tmp_path: Path) -> None:
    statements, last, status = INJECTED[case]
    trace = tmp_path / "trace"
    run = emu_with(statements, "boot", flat_kernel(tmp_path, GUEST), "--json", f"--trace={trace}", "--trace-firmware")
    lines = run.stderr.splitlines()
    assert run.returncode == status, run.stderr
    assert lines[-1 if status != 130 else 0].startswith(last), run.stderr
    assert lines[0].startswith("emu: failed (" if status != 130 else "emu: interrupted after "), run.stderr
    assert "Traceback" not in run.stderr
    told = json.loads(run.stdout.splitlines()[-1])
    assert (told["status"], told["outcome"]) == (status, "failed" if status != 130 else "interrupted")
    events = [line.split()[2] for line in trace.read_text().splitlines()]
    assert (events[0], events[-1]) == ("reset", "stop")
    assert "hidden-fault" in events


def test_a_full_disk_under_the_trace_loses_neither_summary_nor_line() -> None:
    run = emu("boot", "paging", "--trace=/dev/full", "--json")
    lines = run.stderr.splitlines()
    assert lines[-1] == "emu: /dev/full: cannot write the trace (no space left on device)"
    assert [line for line in lines if line.startswith("emu: ")][0].startswith(("emu: failed (/dev/full", "emu: exited with"))
    told = json.loads(run.stdout.splitlines()[-1])
    assert (run.returncode, told["status"]) == (74, 74)


def test_output_that_nobody_takes_leaves_the_trace(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with Path("/dev/full").open("w") as full:
        run = emu("boot", "hello", f"--trace={trace}", "--trace-firmware", stdout=full)
    assert run.returncode == 74
    assert run.stderr.splitlines()[-1].startswith("emu: standard output: cannot write the guest's output")
    events = [line.split()[2] for line in trace.read_text().splitlines()]
    assert (events[0], events[-1]) == ("reset", "stop")


def test_an_abort_leaves_the_trace(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    fault = (
        "import os\nfrom emu.devices.system import SystemPorts\n"
        "def fail(self, port, size, value): value == 0xEE and os.abort()\nSystemPorts.write = fail"
    )
    cpuid = b"\x31\xc0\x0f\xa2"
    run = emu_with(fault, "boot", flat_kernel(tmp_path, cpuid + ABORTS), f"--trace={trace}")
    assert run.returncode == 70
    assert run.stderr.splitlines()[-1].startswith("emu: the engine gave up")
    events = [line.split()[2] for line in trace.read_text().splitlines()]
    assert "cpuid" in events[-3:]


def test_a_failed_case_of_a_suite_shows_what_led_to_the_error(tmp_path: Path) -> None:
    flat_kernel(tmp_path, GUEST, "k")
    (tmp_path / "suite.toml").write_text('[[case]]\nname = "fails"\nimage = "./k"\n')
    statements = INJECTED["broken invariant"][0]
    program = (
        f"{statements}\nfrom pathlib import Path\nfrom emu.config import Mmu\nfrom emu.suite.reading import read_suite\n"
        "from emu.suite.execute import execute\nfrom emu.suite.results import Job\n"
        f"result = execute(Job(read_suite(Path({str(tmp_path / 'suite.toml')!r}))[0], Mmu.SHADOW))\n"
        "print(result.status, result.reasons, *result.trace_tail, sep='\\n')"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=LIMIT_S, check=False)
    lines = run.stdout.splitlines()
    assert lines[0] == "FAIL", run.stderr
    assert "failed (a test says so)" in lines[1]
    assert any("hidden-fault" in line for line in lines[2:])


def test_an_error_of_the_host_loses_neither_log_nor_summary(tmp_path: Path) -> None:
    """The host fails after its second second; the log has both."""
    import pyarrow.parquet as pq

    scenario, log = tmp_path / "two.toml", tmp_path / "log.parquet"
    scenario.write_text('memory = "64M"\n[[vm]]\nname = "vm"\nmemory = "16M"\nappend = \'quiet run="idle seconds=9"\'\n')
    statements = (
        "from emu.cli.host_watcher import Watcher\nreal, seconds = Watcher.second, []\n"
        "def second(self, machine):\n"
        "    real(self, machine)\n"
        "    seconds.append(1)\n"
        "    if len(seconds) == 2: raise ZeroDivisionError('in the host')\n"
        "Watcher.second = second"
    )
    run = emu_with(statements, "host", scenario, "--log", log, "--json")
    assert run.returncode == 70
    assert run.stderr.splitlines()[-1].startswith("emu: a bug of emu: ZeroDivisionError: in the host")
    assert json.loads(run.stdout.splitlines()[-1])["vms"][0]["name"] == "vm"
    assert pq.read_table(log).to_pydict()["seconds"] == [1.0, 2.0]


def test_an_error_in_one_vm_of_a_host_ends_that_vm(tmp_path: Path) -> None:
    scenario = tmp_path / "two.toml"
    scenario.write_text(
        'memory = "64M"\n[[vm]]\nname = "vm"\ncount = 2\nmemory = "16M"\nappend = \'quiet run="idle seconds=1"\'\n'
    )
    statements = (
        "from emu.vm.vm import VirtualMachine\nreal = VirtualMachine._go_on\n"
        "def go_on(self):\n"
        "    if self.state.number == 1 and self.virtual_time > 5_000_000: raise ZeroDivisionError('in a VM')\n"
        "    real(self)\n"
        "VirtualMachine._go_on = go_on"
    )
    run = emu_with(statements, "host", scenario)
    assert run.returncode == 1
    assert "emu: vm-2: exited with value 0" in run.stderr
    assert "emu: vm-1: a bug of emu: ZeroDivisionError: in a VM" in run.stderr


# ---- little memory of the host ----


def under_limit(kilobytes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command with so much address space."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (kilobytes << 10, kilobytes << 10))

    return emu(*arguments, preexec_fn=limit)


@pytest.mark.parametrize("kilobytes", [60_000, 200_000, 400_000, 550_000])
def test_too_little_address_space_is_a_line(kilobytes: int) -> None:
    run = under_limit(kilobytes, "boot", "hello")
    assert (run.returncode, run.stdout) == (72, "")
    (line,) = run.stderr.splitlines()
    assert line.startswith("emu: at least 576 MiB of address space are needed")


@pytest.mark.parametrize("kilobytes", [650_000, 1_000_000, 1_500_000])
def test_a_small_guest_boots_in_little_address_space(kilobytes: int) -> None:
    run = under_limit(kilobytes, "boot", "hello", "-q")
    assert (run.returncode, run.stdout.splitlines()[0]) == (0, "Hello from emu guest"), run.stderr


@pytest.mark.parametrize("memory", ["300M", "2000M"])
def test_a_guest_that_does_not_fit_is_a_line(memory: str) -> None:
    run = under_limit(650_000, "boot", "hello", "--memory", memory)
    assert run.returncode == 72, run.stderr
    assert run.stderr.splitlines()[-1].startswith("emu: ")
    assert "Traceback" not in run.stderr


# ---- guests that do nothing but fault ----


def fault_loop(*, deep: bool) -> bytes:
    """A kernel whose handler of page faults is not mapped; its stack runs out soon, or after some twenty million faults."""
    gdt, idt, directory = LOAD + 0x1000, LOAD + 0x2000, LOAD + 0x3000
    code = b"\x0f\x01\x15" + struct.pack("<I", LOAD + 0x800) + b"\x0f\x01\x1d" + struct.pack("<I", LOAD + 0x808)
    code += b"\xbc" + struct.pack("<I", 0x4FFF_F000 if deep else LOAD + 0xF000)  # mov esp
    code += b"\xb8" + struct.pack("<I", directory) + b"\x0f\x22\xd8" + b"\x0f\x20\xe0\x83\xc8\x10\x0f\x22\xe0"  # CR3, CR4.PSE
    code += b"\x0f\x20\xc0\x0d\0\0\0\x80\x0f\x22\xc0" + b"\xa1\0\0\0\x40\xf4"  # CR0.PG; mov eax, [40000000]
    image = bytearray(0x4000)
    image[0x20 : 0x20 + len(code)] = code
    image[0x800:0x80E] = struct.pack("<HIHHI", 0x17, gdt, 0, 0x7FF, idt)
    image[0x1000:0x1018] = struct.pack("<3Q", 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF)
    image[0x2000 + 14 * 8 : 0x2008 + 14 * 8] = struct.pack("<HHHH", 0, 8, 0x8E00, 0x5000)  # a handler at 50000000
    image[0x3000:0x3004] = struct.pack("<I", 0x83)
    image[0x3000 + 4 * 0x101 : 0x3000 + 4 * 0x140] = struct.pack("<I", 0x400083) * 0x3F  # one frame, again and again
    return bytes(image[0x20:])


@pytest.mark.parametrize("mmu", ["shadow", "nested"])
def test_a_handler_that_faults_ends_where_the_stack_does(mmu: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    run = emu("boot", flat_kernel(tmp_path, fault_loop(deep=False)), "--mmu", mmu, f"--trace={trace}")
    assert run.returncode == 80, run.stderr
    assert run.stderr.startswith("emu: triple fault (at 0008:50000000, CR2 ")
    assert sum(" true-fault " in line and "VA 50000000" in line for line in trace.read_text().splitlines()) > 1000


@pytest.mark.parametrize("mmu", ["shadow", "nested"])
@pytest.mark.parametrize("limit", [["--cpu-limit", "50K"], ["--time-limit", "5ms"]])
def test_a_limit_ends_an_endless_loop_of_faults(limit: list[str], mmu: str, tmp_path: Path) -> None:
    run = emu("boot", flat_kernel(tmp_path, fault_loop(deep=True)), "--mmu", mmu, "--json", *limit)
    assert run.returncode == 124, run.stderr
    assert 50_000 <= json.loads(run.stdout.splitlines()[-1])["virtual_time"] < 51_000


def test_ctrl_c_ends_an_endless_loop_of_faults(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from emu.cli import run; run()", "boot", str(flat_kernel(tmp_path, fault_loop(deep=True)))]
    with subprocess.Popen(
        [*command, "--tables=20000"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as run:
        assert run.stdout is not None
        os.read(run.stdout.fileno(), 1)  # the tables: it is at it
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=LIMIT_S)
    assert run.returncode == 130
    assert errors.startswith(b"emu: interrupted after ")


@pytest.mark.parametrize("mmu", ["shadow", "nested"])
@pytest.mark.parametrize("target", [b"\x00\x00\xff\xff", b"\xf0\xff\x00\xf0"], ids=["FFFF:0", "F000:FFF0"])
def test_a_jump_to_the_reset_vector_in_real_mode_is_a_reset(target: bytes, mmu: str, tmp_path: Path) -> None:
    """As on a PC; the boot sector says X at the debug port each time that it comes."""
    image = tmp_path / "disk.img"
    sector = b"\xfa\xb0\x58\xba\xe9\x00\xee" + b"\xea" + target  # cli; mov al, 'X'; mov dx, E9; out dx, al; ljmp
    image.write_bytes(sector.ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 20))
    once = emu("boot", "--boot-disk", image, "--no-reboot", "--mmu", mmu)
    assert (once.returncode, once.stderr[:11]) == (84, "Xemu: reset")
    again = emu("boot", "--boot-disk", image, "--cpu-limit", "100K", "--json", "--mmu", mmu)
    assert again.stderr.startswith("XXX")
    told = json.loads(again.stdout.splitlines()[-1])
    times = again.stderr.split("emu")[0].count("X")
    assert again.returncode == 124
    assert told["counters"]["resets"] in (times, times + 1)  # the limit may come before the sector does


def test_transfers_of_the_firmware_s_device_take_virtual_time(tmp_path: Path) -> None:
    """A loop of three instructions that has 16 MiB stored each time: a quarter of a million instructions' worth."""
    request = LOAD + 0x800
    code = b"\xc7\x05" + struct.pack("<I", request) + b"\0\0\0\x02"  # again: control = read
    code += (
        b"\x66\xba\x18\x05\xb8" + request.to_bytes(4, "big") + b"\xef"
    )  # mov dx, 518; mov eax, request (big-endian); out dx, eax
    code += b"\xeb" + bytes([(-len(code) - 2) & 0xFF])
    image = code.ljust(0x800 - 0x20, b"\0") + struct.pack(">IIQ", 2, 16 << 20, 0x40_0000)
    run = emu("boot", flat_kernel(tmp_path, image), "--cpu-limit", "3M", "--json")
    told = json.loads(run.stdout.splitlines()[-1])
    assert (run.returncode, told["outcome"]) == (124, "limit reached")
    assert 3_000_000 <= told["virtual_time"] < 3_300_000
    assert told["instructions"] < 10_000  # the firmware's and the loop's: what the device did is no instruction
    assert told["counters"]["io_writes"] < 60
