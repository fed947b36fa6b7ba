"""Why native code stopped the engine: what `emu.vm.exits` finds in the control block's REASON word."""

from __future__ import annotations

RUNNING = 0
EXIT = 1  # a VM exit that Python serves; EXIT_CODE has its number
TIME = 2  # DEADLINE reached
WINDOW = 3  # a waiting interrupt can be taken now
REFILL = 4  # the frame reserve or the event ring wants Python
SHUTDOWN = 5  # triple fault
PORT_FAULT = 7  # a port instruction of the block under way must fault
NO_PROGRESS = 8  # the same fault again and again: a fault of emu
DEVICE_FETCH = 9  # the guest jumped into a device's registers
REFUSED = 10  # the block to be entered has an instruction that the guest's processor does not have; EXIT_INFO has its address
GAVE_UP = 11  # the engine aborted while it translated the block to be entered

RESERVE_LOW = 16  # frames that one exit may need at the most: pages of an event's frame and the tables for them
TASK_LOW = (
    64  # frames that a task switch may need: two segments, a dozen descriptors, a stack, and the tables for them, in two spaces
)
HOSTED_LOW = 64  # and with a transfer of the disk, 33 pages, when the VM may not take frames by itself
