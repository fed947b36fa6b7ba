"""The records of pages opened for one guest instruction (`emu.vm.step`): layout only, shared with the walker."""

from __future__ import annotations

BYTES = 48  # int64 words:
SLOT = 0  # page that the instruction stores to
ENTRY = 8  # host address of the shadow or nested entry opened for it
SAVED = 16  # that entry before
PURPOSE = 24  # one of those below
ADDRESS = 32  # the faulting address
COPY_OF = 40  # host address of the page whose contents are compared (TABLE_STORE) or staged (DEVICE_*)
LIMIT = 8  # pages that one instruction can store to: two operands, and descriptors and stacks, each of them across two

TABLE_STORE = 1  # a guest page table: compare afterwards
DISCARD = 2  # ROM or absent memory: the store goes to a sink
DEVICE_LOAD = 3  # a device's register, staged in the slot's frame
DEVICE_STORE = 4  # the same, and what the instruction leaves there goes to the device
OVERRIDE = 5  # the supervisor stores to a read-only page with CR0.WP off: nothing to do afterwards
