"""A scenario's VMs, made: image, disk, configuration."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from emu import images
from emu.config import VmConfig
from emu.devices.disk import Disk, copy_disk
from emu.diskimage.make import make as make_image
from emu.host.hosted import HostedVm
from emu.host.scenario import VmSpec
from emu.vm import launch
from emu.vm.vm import VirtualMachine

RESERVE_FRAMES = 256  # that a VM has in hand at a slice's start
SHADOW_PAGES, NESTED_PAGES = 1024, 2048  # caps of each VM


def boot_files(spec: VmSpec) -> dict[str, bytes]:
    """What the firmware boots; raises BadImageError or UsageError."""
    return launch.boot_files(launch.Boot(launch.find_image(spec.guest), spec.append), spec.memory)


def new_disks(spec: VmSpec) -> tuple[Disk, ...]:
    """A file system in the host's memory, if the VM has a disk."""
    if not spec.disk:
        return ()
    with tempfile.TemporaryDirectory(prefix="emu-host-") as folder:
        image = Path(folder) / "disk.img"
        make_image(image, spec.disk, spec.swap)
        return (copy_disk(image),)


def new_vm(vm: HostedVm, spec: VmSpec, insns_per_second: int, files: dict[str, bytes], disks: Sequence[Disk]) -> VirtualMachine:
    """The VM, ready to run; raises MachineMemoryError."""
    config = VmConfig.from_mapping(
        {
            "memory_bytes": spec.memory,
            "mmu": spec.mmu,
            "insns_per_second": insns_per_second,
            "shadow_pages": SHADOW_PAGES,
            "nested_tables": NESTED_PAGES,
            "reserve_frames": RESERVE_FRAMES,
        }
    )
    return VirtualMachine(
        vm.memory,
        config,
        rom=images.firmware(),
        firmware_files=files,
        console=vm.console,
        disks=disks,
        number=vm.number,
        host=vm,
    )
