# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest OS under memory pressure for long: `scripts/soak [--billions 50] [--guest os-i386] [--memory 24M] [--seed 1]`.

Workloads that check every byte run side by side (guests/os/user/soak.c) on a disk with swap, while the balloon's target changes at
random. Every two virtual minutes the invariants of the VMM are checked. At the end the machine is stopped where it is, and the image checked.
Exit status: 0 all right, 1 something was wrong.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
import time
from pathlib import Path

from emu import images
from emu.config import Mmu, VmConfig, parse_size
from emu.devices import disk
from emu.diskimage.check import check as check_image
from emu.diskimage.image import Image
from emu.diskimage.make import make
from emu.units import MIB
from emu.vm import check, launch

BILLION = 1_000_000_000
STEP_SECONDS = 120  # of virtual time between two looks
TROUBLE = re.compile(r"FAIL|panic|killed|disk:.*failed")
TARGET_SECONDS = 30  # between two targets of the balloon


def balloon_plan(seed: int, memory_bytes: int, insns: int) -> tuple[tuple[int, int], ...]:
    """Targets from nothing to a third of memory; idle time makes virtual time longer than the instructions say."""
    rng = random.Random(seed)
    step = TARGET_SECONDS * VmConfig.insns_per_second
    return tuple((at, rng.randrange(0, memory_bytes // 3, MIB)) for at in range(step, 4 * insns, step))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__.splitlines()[0])
    parser.add_argument("--billions", type=float, default=50, help="guest instructions, in billions (default 50)")
    parser.add_argument("--guest", default="os-i386", help="os-i386, os-pae or os-x86_64")
    parser.add_argument("--memory", type=parse_size, default="24M", help="guest memory (default 24M)")
    parser.add_argument("--mmu", type=Mmu, default=Mmu.SHADOW, help="shadow or nested")
    parser.add_argument("--seed", type=int, default=1, help="of the balloon's targets")
    chosen = parser.parse_args()
    insns = int(chosen.billions * BILLION)
    config = VmConfig(memory_bytes=chosen.memory, mmu=chosen.mmu, balloon_plan=balloon_plan(chosen.seed, chosen.memory, insns))
    files = launch.boot_files(launch.Boot(images.guest(chosen.guest), 'run="soak rounds=1000000"'), chosen.memory)
    console = launch.RecordingConsole()
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="emu-soak-") as folder:
        image = Path(folder) / "os.img"
        make(image, 64 * MIB, 48 * MIB)
        vm = launch.new_machine(config, files, console, None, [disk.open_disk(image)])
        until = 0
        while vm.retired_insns < insns:
            until += STEP_SECONDS * config.insns_per_second
            vm.run_until(until)
            check.check(vm.state)
            lines = console.output.decode(errors="replace").splitlines()
            print(
                f"soak: {vm.retired_insns / BILLION:.1f} billion instructions, {vm.virtual_seconds:.0f} virtual seconds, "
                f"{time.monotonic() - start:.0f} s; balloon {vm.balloon.size} of {vm.balloon.target} pages, {vm.balloon.counts.pops} pops; "
                f"{lines[-1] if lines else ''}",
                flush=True,
            )
            troubles = [line for line in lines if TROUBLE.search(line)]
            if troubles or vm.virtual_time < until:
                print("\n".join(["soak: something is wrong, or the guest ended", *troubles[:20], *lines[-20:]]))
                return 1
        vm.close()
        with Image(image) as opened:
            report = check_image(opened)
        print("\n".join(report.faults) or f"soak: the image is sound: {report.files} files, {report.used_blocks} blocks")
        return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
