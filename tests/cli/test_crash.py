# SPDX-License-Identifier: GPL-2.0-or-later
"""What makes the engine abort is an invalid opcode to the guest; any other crash ends emu with a line and a status."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

LOAD_ADDRESS = 0x10_0000
HEADER_BYTES = 32
FLAG_ADDRESSES = 1 << 16
MAGIC = 0x1BADB002
LOCK_BTS_EAX_ECX = bytes.fromhex("f00fabc8")  # LOCK before a bit test of a register: #UD on a processor
TRIPLE_FAULT = 80
CRASHING = "import os, sys; from emu.machine import crash; {guard} crash.install(); os.kill(os.getpid(), int(sys.argv[1]))"
GUARD = "from emu.machine import aborts; aborts.guard(1);"


def kernel(code: bytes) -> bytes:
    """A multiboot image with address fields that starts at `code`."""
    addresses = (LOAD_ADDRESS, LOAD_ADDRESS, 0, 0, LOAD_ADDRESS + HEADER_BYTES)
    return struct.pack("<8I", MAGIC, FLAG_ADDRESSES, -(MAGIC + FLAG_ADDRESSES) % 2**32, *addresses) + code


def test_an_abort_of_the_engine_is_an_invalid_opcode(tmp_path: Path) -> None:
    """Without an IDT that is a triple fault."""
    image = tmp_path / "lock.bin"
    image.write_bytes(kernel(LOCK_BTS_EAX_ECX))
    command = [sys.executable, "-m", "emu", "boot", str(image)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (TRIPLE_FAULT, "")


@pytest.mark.parametrize("guard", ["", GUARD], ids=["alone", "with the guard of aborts"])
@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV])
def test_any_other_crash_is_one_line(number: int, guard: str) -> None:
    command = [sys.executable, "-c", CRASHING.format(guard=guard), str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (70, "")
    assert done.stderr.startswith("emu: the engine gave up")
    assert len(done.stderr.splitlines()) == 1


def test_an_abort_outside_of_a_vm_goes_to_whoever_waited_for_it() -> None:
    """The guard was installed last: it hands on what is not the engine's."""
    code = f"import os; from emu.machine import crash; crash.install(); {GUARD} os.abort()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 70
    code = f"import os; {GUARD} os.abort()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGABRT


def test_the_address_of_the_process_is_not_kept(tmp_path: Path) -> None:
    """A process that was forked has the guard of its parent, and its own threads."""
    image = tmp_path / "lock.bin"
    image.write_bytes(kernel(LOCK_BTS_EAX_ECX))
    code = f"import os; {GUARD} from emu.cli import run; import sys; sys.argv = ['emu', 'boot', {str(image)!r}]\nif os.fork() == 0: run()\nelse: sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == TRIPLE_FAULT, (os.fspath(image), done.stderr)
